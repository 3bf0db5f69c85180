"""Images: what files hold, against bytes written here; what is refused; and how they are shown."""

import pickle
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import shared_data

import pidjax as pid
from pidjax import plot
from pidjax.images import Images, cifar


def batch(count=5, seed=0):
    """Labels, and pixels as planes."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 10, count), rng.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)


def records(labels, planes):
    return b"".join(bytes([label]) + plane.tobytes() for label, plane in zip(labels, planes, strict=True))


def pickled_as_published(labels, planes):
    """Opcodes of the published files, which Python 2 wrote: text and bytes alike as strings of 8 bits, protocol 2."""

    def text(value):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    )
    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = number(len(labels)) + number(3072) + b"\x86"
    array += b"(" + number(1) + shape + kind + b"\x89" + text(planes.tobytes()) + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return (
        b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + text(b"batch_label") + text(b"one") + b"u."
    )


def test_cifar_in_both_formats(tmp_path):
    """A pixel is its byte over 255, wherever its plane put it; batches of a folder follow each other."""
    labels, planes = batch()
    again = pickle.dumps({"data": planes.reshape(5, -1), "labels": labels.tolist()}, protocol=2)
    for number, content in enumerate([records(labels, planes), pickled_as_published(labels, planes), again]):
        path = tmp_path / f"batch{number}"
        path.write_bytes(content)
        images = cifar(path)
        assert images.shape == (32, 32, 3)
        np.testing.assert_array_equal(images.labels, labels)
        np.testing.assert_allclose(images.pixels, planes.transpose(0, 2, 3, 1) / 255, rtol=1e-15)
        np.testing.assert_array_equal(images.of(images.points), images.pixels)
    other = batch(2, seed=1)
    (tmp_path / "data_batch_2.bin").write_bytes(records(*other))
    (tmp_path / "data_batch_1.bin").write_bytes(records(labels, planes))
    (tmp_path / "test_batch.bin").write_bytes(records(*other))
    images = cifar(tmp_path, dtype=jnp.float32)
    assert images.pixels.dtype == jnp.float32
    np.testing.assert_array_equal(images.samples.labels, np.concatenate([labels, other[0]]))
    np.testing.assert_array_equal(images[jnp.array([6, 0])].labels, [other[0][1], labels[0]])


class Runs:
    def __reduce__(self):
        return Path.touch, (Path("it_ran"),)


def spoilt(kind):
    labels, planes = batch()
    data = planes.reshape(5, -1)
    return {
        "empty": b"",
        "truncated": records(labels, planes)[:-7],
        "truncated pickle": pickled_as_published(labels, planes)[:-700],
        "label": records([*labels[:4], 10], planes),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "code": pickle.dumps({"data": Runs(), "labels": labels.tolist()}, protocol=2),
        "objects": pickle.dumps({"data": np.array([{}], object), "labels": [1]}, protocol=2),
        "floats": pickle.dumps({"data": data / 255, "labels": labels.tolist()}, protocol=2),
        "labels of another length": pickle.dumps({"data": data, "labels": [1]}, protocol=2),
        "meta": pickle.dumps({"label_names": ["airplane"]}, protocol=2),
        "list": pickle.dumps([1, 2], protocol=2),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "has 0 bytes"),
        ("truncated", r"has 15358 bytes, which are no whole records of 3073: it is truncated"),
        ("truncated pickle", "truncated"),
        ("label", "holds labels from . to 10"),
        ("png", "no whole records"),
        ("code", r"it names .*getattr|it names pathlib"),
        ("objects", "an array that is not of bytes"),
        ("floats", "an array that is not of bytes"),
        ("labels of another length", r"pixels of shape \(5, 3072\) and 1 labels"),
        ("meta", r"holds \['label_names'\]"),
        ("list", "holds a list"),
    ],
)
def test_other_files_are_told(tmp_path, monkeypatch, kind, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(spoilt(kind))
    with pytest.raises(ValueError, match=message):
        cifar(tmp_path / "file")
    assert not (tmp_path / "it_ran").exists()


def test_bad_images_are_named(tmp_path):
    with pytest.raises(ValueError, match="without data_batch"):
        cifar(tmp_path)
    with pytest.raises(FileNotFoundError):
        cifar(tmp_path / "nowhere")
    pixels = np.zeros((3, 4, 4, 1))
    with pytest.raises(ValueError, match=r"pixels holds 1 non-finite values of 48, the first at index \(1, 2, 3, 0\)"):
        Images(np.where(np.arange(48).reshape(pixels.shape) == 27, np.nan, pixels))
    with pytest.raises(ValueError, match=r"labels is int.*\[2\]; pass integers >= 0 of shape \(3,\)"):
        Images(pixels, [0, 1])
    with pytest.raises(ValueError, match="labels go up to 2 and names has 2"):
        Images(pixels, [0, 1, 2], ("a", "b"))
    with pytest.raises(ValueError, match=r"pixels has shape \(0, 4, 4, 1\)"):
        Images(pixels[:0])
    with pytest.raises(ValueError, match=r"points has shape .*; pass vectors of 16 numbers"):
        Images(pixels).of(jnp.zeros((2, 15)))
    with pytest.raises(ValueError, match="size is 500; pass at most 427"):
        pid.images.photographs(500)


def test_images_of_scikit_learn():
    """Digits are 17 greys; a patch is where the lattice says; samples end on data, whose labels go along."""
    digits, patches = pid.images.digits(), pid.images.photographs(100, 50)
    np.testing.assert_array_equal(np.unique(np.asarray(digits.pixels) * 16), np.arange(17))
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(patches) == 2 * 7 * 11
    np.testing.assert_array_equal(patches.pixels[0, 50:], patches.pixels[11, :50])
    np.testing.assert_array_equal(patches.pixels[0, :, 50:], patches.pixels[1, :, :50])
    law = pid.Problem(digits.samples).at(0.5, digits.points[3] * 0.45).law
    assert law.class_probabilities.shape == (10,)


def test_the_real_batches():
    images = cifar(shared_data("cifar-10-batches-bin"), dtype=jnp.float32)
    assert images.names[int(images.labels[0])] == "frog"
    assert len(images) % 5 == 0
    assert 0.4 < float(jnp.mean(images.pixels)) < 0.55


def test_figures_of_images():
    """Which pixels are where, by the arrays that are shown; blanks; and shapes that do not fit."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-0.2, 1.2, (2, 3, 4, 5, 3))
    images[1, 2] = np.nan
    figure = plot.image_grid(images, rows=("a", "b"), columns=("1", "2", "3"), title="images")
    panes = np.array(figure.axes).reshape(2, 3)
    np.testing.assert_array_equal(panes[1, 0].images[0].get_array(), np.clip(images[1, 0], 0, 1))
    assert not panes[1, 2].images
    states, means = rng.normal(size=(3, 4, 4, 1)), rng.uniform(size=(3, 4, 4, 1))
    panes = np.array(plot.film([plot.Film("β = 1", states, means)], [0.0, 0.5, 1.0]).axes).reshape(2, 3)
    np.testing.assert_array_equal(panes[0, 1].images[0].get_array(), means[1, ..., 0])
    np.testing.assert_allclose(
        np.corrcoef(panes[1, 2].images[0].get_array().ravel(), states[2].ravel())[0, 1], 1, atol=0.1
    )
    for message, wrong in [
        ("2 channels", lambda: plot.image_grid(np.zeros((1, 1, 4, 4, 2)))),
        ("rows has 1 names, of 2 rows", lambda: plot.image_grid(images, rows=("a",))),
        (
            r"states has shape \(3, 4, 4, 1\); pass shape \(2, h, w, c\)",
            lambda: plot.film([plot.Film("", states, means)], [0.0, 1.0]),
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()
