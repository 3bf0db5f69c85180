"""The page of the suite as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..page import page

Rows = Sequence[Mapping[str, Any]]

NOTE = """
K is the signal-to-noise ratio of the state as an observation of the end point. The class, or the datum, is decided where the
probability that two paths from one state end in the same is half way from its value at the start to one. The theory:
speciation at 1/Λ, Λ the largest eigenvalue of the total covariance or of that between classes; collapse where the information
of a Gaussian law with the data's spectrum is log n ("Gaussian": with all variances at their mean). Times are those of the
rescaled problem. At finite size the sum over the other points is, at the collapse, that of a random energy model at its
critical temperature, typically half of its mean: to leading order that moves log K by −log 2 / (½ Σ Kλ/(1+Kλ)). ± is one
standard error; scores are differences in standard errors of independent runs.
"""


def markdown(results: Mapping[str, Rows], environment: Mapping[str, str]) -> str:
    """All tables."""
    parts = [page("Data sets", environment, finding(results), *theory(results)), NOTE]
    for title, (header, rows) in {
        "Every β decides at one K, later the stiffer": betas(results),
        "Score-based diffusion and H-PID on one clock": clock(results),
        "Information, by entropies and by half the error": information(results),
        "Finite size: points of N(0, I)": finite(results),
        "Two Gaussians": pairs(results),
        "Nine Gaussians": nine(results),
        "Universal importance sampling on the nine Gaussians, from their density": universal(results),
        "Early exit": exits(results),
        "Images that none of the data is": generated(results),
        "Seconds (first call, later)": speed(results),
    }.items():
        parts.append(f"\n## {title}\n\n{table(header, rows)}")
    return "\n".join(parts)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)) + "\n"


def finding(results: Mapping[str, Rows]) -> str:
    """What came out, in a sentence."""
    compared = [scores(results, row["data"], name) for row in results["theory"] for name in COMPARED]
    differences = np.concatenate([np.zeros(0), *(one for one in compared if one is not None)])
    nine_rows = results["nine"]
    fastest = {
        row["rescaled"]: min(_of(nine_rows, row["rescaled"]), key=lambda one: one["time"])["beta"] for row in nine_rows
    }
    words = "Class and datum are decided at one K for every β" if at_one_ratio(results) else "K changes with β"
    words += ", at a time that rises with β" if rising(results) else ", at a time that does not rise with β"
    if fastest:
        words += (
            f"; that of the nine Gaussians is earliest at β = {' and '.join(f'{b:g}' for b in set(fastest.values()))}"
        )
    if differences.size:
        words += f"; score-based diffusion differs from H-PID on one clock by at most {np.abs(differences).max():.1f} "
        words += f"standard errors in {differences.size} comparisons"
    return words + "."


def _by_beta(results: Mapping[str, Rows], column: str) -> list[np.ndarray]:
    """Values and errors of a column in the order of β, for each data set."""
    names = dict.fromkeys(row["data"] for row in results["betas"])
    return [np.array([row[column] for row in results["betas"] if row["data"] == name]).T for name in names]


def at_one_ratio(results: Mapping[str, Rows]) -> bool:
    """Whether every ratio is within four standard errors of the others' mean."""
    found = [part for column in ("speciation", "memorisation") for part in _by_beta(results, column)]
    return all((np.abs(values - values.mean()) < 4 * errors).all() for values, errors in found)


def rising(results: Mapping[str, Rows]) -> bool:
    """Whether every time is above those of smaller β."""
    found = [part for column in ("speciation_time", "memorisation_time") for part in _by_beta(results, column)]
    return all((np.diff(times) > 0).all() for times, _ in found)


def _of(rows: Rows, rescaled: bool) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["rescaled"] == rescaled]


def pm(estimate: Sequence[float], digits: int = 3) -> str:
    """A value and its error."""
    return f"{estimate[0]:.{digits}g} ± {estimate[1]:.1g}"


def theory(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["data", "n", "d", "1/Λ", "1/Λ between", "class decided", "collapse", "Gaussian", "datum decided"]
    lines = []
    for row in results["theory"]:
        own = [one for one in results["betas"] if one["data"] == row["data"]]
        measured = [pm(combined(own, name)) if own else "" for name in ("speciation", "memorisation")]
        lines.append(
            [row["data"], f"{row['count']:,}", f"{row['dim']:,}", f"{row['speciation']:.4g}",
             f"{row['speciation_between']:.4g}", measured[0], f"{row['collapse']:.4g}",
             f"{row['collapse_gaussian']:.4g}", measured[1]]
        )  # fmt: skip
    return header, lines


def combined(rows: Rows, name: str) -> tuple[float, float]:
    """The mean of independent runs and its standard error."""
    values, errors = np.array([row[name] for row in rows]).T
    return float(values.mean()), float(np.sqrt((errors**2).sum()) / len(errors))


def betas(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["data", "β", "K class", "K datum", "K at Â = ½", "t class", "t datum", "t at Â = ½"]
    lines = [
        [row["data"], f"{row['beta']:g}", pm(row["speciation"]), pm(row["memorisation"]), f"{row['half']:.3g}",
         pm(row["speciation_time"]), pm(row["memorisation_time"]), f"{row['half_time']:.3f}"]
        for row in results["betas"]
    ]  # fmt: skip
    return header, lines


def scores(results: Mapping[str, Rows], data: str, name: str) -> np.ndarray | None:
    """Score-based less H-PID in standard errors, where both have met what they tell apart in ten paths at least."""
    own = {row["process"]: row for row in results["curves"] if row["data"] == data}
    if not {"H-PID", "score-based"} <= set(own):
        return None
    (one, one_error), (other, other_error) = (np.array(own[process][name]) for process in ("H-PID", "score-based"))
    decided = np.array(own["bridges"]["datum_agreement"][0]) if "bridges" in own else np.zeros_like(one)
    some = decided < 0.95
    return (one - other)[some] / np.hypot(one_error, other_error)[some]


COMPARED = ("datum_entropy", "datum_agreement", "class_entropy", "class_agreement", "weighted_state", "squared_error")


def clock(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["data", "score of", "root mean square", "largest, over all K with P(same datum) < 0.95"]
    lines = []
    for row in results["theory"]:
        for name in COMPARED:
            found = scores(results, row["data"], name)
            if found is not None:
                size = np.sqrt(np.mean(found**2))
                lines.append(
                    [row["data"], name.replace("_", " "), f"{size:.2f}", f"{np.abs(found).max():.2f} of {found.size}"]
                )
    return header, lines


def information(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    """What the state comes to say of the datum from the first K to the last: I = log n − H, dI/dK = ½E|y − x̂|²."""
    header = [
        "data",
        "paths",
        "from K",
        "to K",
        "nats, by entropies",
        "by ∫ ½E|y − x̂|² dK, the trapezoidal rule in log K",
    ]
    lines = []
    for row in results["curves"]:
        snr, (entropy, entropy_error) = np.array(row["snr"]), np.array(row["datum_entropy"])
        square, square_error = (0.5 * snr * np.array(part) for part in row["squared_error"])
        by_entropy = entropy[0] - entropy[-1], np.hypot(entropy_error[0], entropy_error[-1])
        by_error = [np.trapezoid(part, np.log(snr)) for part in (square, square_error)]
        ends = [f"{end:.3g}" for end in (snr[0], snr[-1])]
        lines.append(
            [row["data"], row["process"], *ends, f"{by_entropy[0]:.3f} ± {by_entropy[1]:.1g}", pm(by_error, 4)]
        )
    return header, lines


def finite(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["d", "n", "collapse K_C", "datum decided / K_C", "exp(−log 2 / ½Σ Kλ/(1+Kλ))"]
    lines = [
        [f"{row['dim']}", f"{row['count']:,}", f"{row['collapse']:.5g}", pm(row["ratio"]), f"{row['expected']:.3f}"]
        for row in results["gaussians"]
    ]
    return header, lines


def pairs(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["d", "class decided", "largest score of P(same class) against the formula"]
    lines = [
        [f"{row['dim']:,}", pm(row["speciation"]), f"{np.abs(row['score']).max():.2f} of {len(row['score'])}"]
        for row in results["pairs"]
    ]
    return header, lines


def nine(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["units", "β", "t at Â = ½", "K there", "t(0.9) − t(0.1)", "sharpness"]
    lines = [
        ["rescaled" if row["rescaled"] else "σ = 1", f"{row['beta']:g}", f"{row['time']:.4f}", f"{row['snr']:.5f}",
         f"{row['duration']:.3f}", f"{row['sharpness']:.3f}"]
        for row in results["nine"]
    ]  # fmt: skip
    return header, lines


def universal(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["Euler steps", "draws", "β", "W2 (floor)", "within 3 sd of a mean (exact 0.989)", "ESS/N"]
    lines = []
    for row in results["universal"]:
        middle = {
            name: (np.mean(row[name]), np.std(row[name], ddof=1) / 3**0.5) for name in ("distance", "inside", "ess")
        }
        lines.append(
            [f"{row['num_steps']}", f"{row['num_draws']:,}", f"{row['beta']:g}",
             f"{pm(middle['distance'])} ({row['floor'][0]:.2f})", pm(middle["inside"]), pm(middle["ess"])]
        )  # fmt: skip
    return header, lines


def exits(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["data", "told from x̂", "right in 50 %", "90 %", "99 %"]
    lines = []
    for row in results["exits"]:
        for name, words in (("label", "class"), ("datum", "datum")):
            lines.append([row["data"], words, *(first(row, name, level) for level in (0.5, 0.9, 0.99))])
    return header, lines


def first(row: Mapping[str, Any], name: str, level: float) -> str:
    """When a curve passes a level: t, K and the shares that are right there."""
    values, errors = row[name]
    passed = [k for k, value in enumerate(values) if value >= level]
    if not passed:
        return "not reached"
    k = passed[0]
    return f"t = {row['times'][k]:.2f}, K = {row['snr'][k]:.3g}: {values[k]:.3f} ± {errors[k]:.1g}"


def generated(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["data", "by", "distance to the nearest datum / held-out's", "nearest / second (held out)",
              "KS of patches (floor)", "H(datum)/log n along the path", "ms a sample and step"]  # fmt: skip
    lines = [
        [row["data"], row["method"], f"{row['distance']:.2f}", f"{row['contrast']:.2f} ({row['usual_contrast']:.2f})",
         f"{row['patches']:.3f} ({pm(row['floor'], 2)})", ", ".join(f"{share:.2f}" for share in row["entropy"]),
         f"{1e3 * row['seconds']:.2f}"]
        for row in results["generated"]
    ]  # fmt: skip
    return header, lines


def speed(results: Mapping[str, Rows]) -> tuple[list[str], list[list[str]]]:
    header = ["data", "transitions, 256 paths × 49 times", "sampling, 256 paths × 50 steps", "one U-turn of 256"]
    lines = [
        [row["data"], *(f"{row[name][0]:.1f}, {row[name][1]:.2f}" for name in ("transitions", "sampling", "uturn"))]
        for row in results["speed"]
    ]
    return header, lines
