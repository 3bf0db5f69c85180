window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"], ["$", "$"]], displayMath: [["\\[", "\\]"], ["$$", "$$"]] },
  // Of a page, what Arithmatex has marked; of a notebook, its text.
  options: { ignoreHtmlClass: "md-typeset", processHtmlClass: "arithmatex|jp-RenderedMarkdown" },
};
