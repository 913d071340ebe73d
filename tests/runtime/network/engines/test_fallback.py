"""An engine that nobody asked for and that fails is replaced, announced and remembered."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from cellrt.cli.main import _run
from cellrt.errors import EngineError, ResourceError
from cellrt.evaluation import engine_runs
from cellrt.runtime import plan as plans
from cellrt.runtime.machine.gpu import DeviceMemoryError
from cellrt.runtime.model.file import open_model
from cellrt.runtime.network.engines import check as engine_check
from cellrt.runtime.network.engines import ladder as engine_module
from cellrt.runtime.network.engines.base import EngineSpec
from cellrt.runtime.network.engines.ladder import choose_engine, ladder, register_engine
from cellrt.runtime.network.engines.openvino import CPU
from cellrt.runtime.network.loaded import LoadedModel

TILE = (16, 24, 32)


class Card:
    """An engine for a GPU that does what a test tells it to."""

    def __init__(self):
        self.version = "card 1.0"
        self.error: Exception | None = EngineError("the driver is too old")
        self.refusal: Exception | None = None
        self.broken: Exception | None = None
        self.loads = 0

    def available(self, *, asked):
        if self.broken:
            raise self.broken
        return self.version

    def check(self, model, tile, precision):
        if self.refusal:
            raise self.refusal

    def load(self, model, tile, *, precision, note):
        self.loads += 1
        if self.error:
            raise self.error
        return CPU.load(model, tile, precision="fp32")


@pytest.fixture
def card(monkeypatch, tmp_path):
    monkeypatch.setenv("CELLRT_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setattr(engine_module, "_ladder", ladder())
    module = types.ModuleType("card_engine")
    module.ENGINE = Card()
    monkeypatch.setitem(sys.modules, "card_engine", module)
    spec = EngineSpec("card", "card_engine:ENGINE", "nvidia", True, frozenset({"fp16"}))
    register_engine(spec, ladder()[0].name)
    return module.ENGINE


@pytest.fixture
def stack(tmp_path):
    path = tmp_path / "stack.tif"
    image = np.random.default_rng(0).integers(0, 99, (8, 24, 24)).astype(np.uint8)
    tifffile.imwrite(path, image, imagej=True, metadata={"axes": "ZYX"})
    return path


def segment(stack, capfd, *words):
    """Run ``cellrt segment``; return its code, what it printed of warnings, and its record."""
    capfd.readouterr()
    code = _run(["segment", str(stack), "--diameter", "16", "--overwrite", *words], debug=False)
    told = capfd.readouterr().err
    record = stack.with_name("stack.run.json")
    return code, told, json.loads(record.read_text(encoding="utf-8")) if not code else {}


def test_the_next_engine_goes_on_and_record_and_terminal_say_so(card, stack, capfd):
    code, told, record = segment(stack, capfd)
    assert code == 0
    assert record["engine"]["name"] == "openvino"
    (warning,) = [text for text in record["warnings"] if "engine card" in text]
    assert "the driver is too old" in warning
    assert warning in " ".join(told.split())
    assert "the driver is too old" in record["engine"]["skipped"]["card"]


def test_the_tiles_are_those_of_the_engine_that_goes_on(card, stack, capfd, monkeypatch):
    """A GPU's are larger: the CPU would need more memory for them than a run promises."""
    image = np.tile(tifffile.imread(stack), (1, 4, 4))
    tifffile.imwrite(stack, image, imagej=True, metadata={"axes": "ZYX"})
    card.device_voxels = lambda model: 10**7
    monkeypatch.setattr(plans, "TILE_VOXELS", (8 * 64 * 64,))
    monkeypatch.setattr(
        engine_module,
        "_ladder",
        tuple(replace(s, fixed_tile=False) if s.name == "card" else s for s in ladder()),
    )
    code, told, record = segment(stack, capfd)
    assert code == 0, told
    assert record["engine"]["name"] == "openvino"
    assert np.prod(record["tiles"]["shape_zyx"]) <= 8 * 64 * 64
    code, _, failed = segment(stack, capfd)  # which never loads the card
    assert record["tiles"] == failed["tiles"]


def test_the_next_run_does_not_pay_again_and_says_so_too(card, stack, capfd):
    segment(stack, capfd)
    assert card.loads == 1
    code, _, record = segment(stack, capfd)
    assert (code, card.loads) == (0, 1)
    (warning,) = [text for text in record["warnings"] if "engine card" in text]
    assert "it failed on 2" in warning
    assert "cellrt doctor --build" in warning


@pytest.mark.parametrize("what", ["version", "clear", "doctor", "asked"])
def test_what_failed_is_tried_again_once_something_changed(card, stack, capfd, what):
    segment(stack, capfd)
    card.error = None
    if what == "version":
        card.version = "card 1.1"
    elif what == "clear":
        _run(["build", "--clear"], debug=False)
    elif what == "doctor":
        assert engine_check._check("card", open_model("nuclei")).works
    else:
        assert segment(stack, capfd, "--engine", "card")[0] == 0
    assert segment(stack, capfd)[2]["engine"]["name"] == "card"


def test_an_engine_asked_for_fails_and_is_not_replaced(card, stack, capfd):
    code, told, _ = segment(stack, capfd, "--engine", "card")
    assert code == 4
    assert "the driver is too old" in told
    assert choose_engine(None, open_model("nuclei")).name == "card"  # that was no guess of ours


@pytest.mark.parametrize(
    "error", [RuntimeError("cuInit\nmore"), TypeError("nullptr"), OSError("libcuda.so.1")]
)
def test_a_librarys_own_errors_count_as_well(card, error):
    card.error = error
    network = LoadedModel(open_model("nuclei"), choose_engine(None, open_model("nuclei")))
    network.session(TILE)
    assert network.choice.name != "card"
    (warning,) = network.choice.warnings
    assert "\n" not in warning


def test_too_little_device_memory_is_not_remembered(card, stack, capfd):
    card.error = DeviceMemoryError("too little device memory")
    assert segment(stack, capfd)[2]["engine"]["name"] == "openvino"
    segment(stack, capfd)
    assert card.loads == 2


def test_what_is_refused_beforehand_is_not_loaded_and_not_remembered(card, stack, capfd):
    card.refusal = EngineError("this GPU has no fp32")
    _, _, record = segment(stack, capfd)
    assert card.loads == 0
    assert any("this GPU has no fp32" in text for text in record["warnings"])
    card.refusal, card.error = None, None
    assert segment(stack, capfd)[2]["engine"]["name"] == "card"


def test_a_library_that_breaks_when_it_is_looked_for_is_passed_over(card):
    card.broken = AttributeError("module has no attribute 'Logger'")
    choice = choose_engine()
    assert choice.name != "card"
    assert "no attribute" in dict(choice.skipped)["card"]
    assert choice.warnings == ()  # it is not there, as far as a user can see
    with pytest.raises(EngineError, match="use another engine"):
        choose_engine("card")


def test_a_dry_run_goes_on_with_the_next_engine_and_says_so(card, stack, capfd):
    assert _run(["segment", str(stack), "--diameter", "16", "--dry-run"], debug=False) == 0
    out = capfd.readouterr().out
    assert "engine card failed: the driver is too old" in out
    assert "openvino (" in out


@pytest.fixture
def start(monkeypatch):
    """Start a network where every engine of the CPU fails."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    def fail(*_, **__):
        raise EngineError("it has no such layer")

    monkeypatch.setattr(type(CPU), "load", fail)
    model = open_model("nuclei")
    return lambda: LoadedModel(model, choose_engine(None, model)).session(TILE)


def test_the_last_engine_fails_with_its_own_reason(start, monkeypatch, tmp_path):
    monkeypatch.setenv("CELLRT_ENGINES", str(tmp_path))
    with pytest.raises(EngineError, match=r"^it has no such layer$"):
        start()
    assert not list(tmp_path.iterdir())  # the CPU's engines are tried every time


def test_where_all_fail_every_reason_is_told(card, start):
    with pytest.raises(EngineError, match=r"driver is too old; .*no such layer"):
        start()


def test_too_little_memory_on_the_cpu_ends_the_run(card, monkeypatch):
    monkeypatch.setattr(type(CPU), "load", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    model = open_model("nuclei")
    with pytest.raises(ResourceError, match="out of memory"):
        LoadedModel(model, choose_engine(None, model)).session(TILE)


def test_a_precision_that_is_not_to_be_had_names_those_engines_that_might_have_it():
    model = open_model("nuclei")
    with pytest.raises(EngineError, match=r"int8 \(.*openvino: .*no nuclei.int8.onnx") as raised:
        choose_engine(None, model, precision="int8")
    assert "onnxruntime" not in raised.value.message  # which never has it
    with pytest.raises(EngineError, match=r"tf32 \(.*\); use precision auto") as raised:
        choose_engine(None, model, precision="tf32")
    assert "openvino" not in raised.value.message


@pytest.mark.parametrize("error", [RuntimeError("cuInit"), EngineError("no"), ValueError("?")])
def test_doctor_survives_an_engine_that_breaks(card, capfd, error):
    card.error = error
    assert _run(["doctor"], debug=False) == 0
    out = capfd.readouterr().out
    assert str(error) in out
    assert "`cellrt segment` will use openvino" in out


def test_a_benchmark_goes_on_where_the_first_engine_fails(card, stack, monkeypatch):
    real = engine_runs._measure

    def measure(stack, model, spec, words, repeats, known):
        if spec.name == "card":
            error = EngineError("it ends with signal 11")
            raise error
        return real(stack, model, spec, words, 1, known)

    monkeypatch.setattr(engine_runs, "_measure", measure)
    told: list[str] = []
    runs = engine_runs.compare_engines(
        stack,
        [open_model("nuclei")],
        ["card", "openvino"],
        arguments=["--diameter", "16"],
        tile_runs=0,
        tell=told.append,
    )
    assert {run.engine for run in runs} == {"openvino"}
    assert any("card" in text and "signal 11" in text for text in told)


def test_the_next_engine_gets_tiles_of_its_own(card, stack, capfd, monkeypatch):
    # Those for a GPU may take more memory than there is beside it.
    monkeypatch.setattr(type(card), "tile", lambda *_: (8, 32, 400), raising=False)
    first = segment(stack, capfd)[2]
    again = segment(stack, capfd)[2]
    assert card.loads == 1
    assert first["tiles"] == again["tiles"]
    assert first["tiles"]["shape_zyx"] != [8, 32, 400]


def test_doctor_says_what_failed_before_and_tries_it_again_when_told_to(card, stack, capfd):
    card.build_seconds = lambda *_: None  # nothing is built
    segment(stack, capfd)
    card.error = None
    check = engine_check._check("card", open_model("nuclei"))
    assert not check.works
    assert "it failed on 2" in check.detail
    assert card.loads == 1
    assert engine_check._check("card", open_model("nuclei"), build=True).works
    assert segment(stack, capfd)[2]["engine"]["name"] == "card"


class Failing:
    """A session that computes some tiles and then fails."""

    device, precision = "GPU", "fp16"

    def __init__(self, error):
        self.error = error

    def infer(self, image):
        raise self.error


FAILURES = [
    EngineError("the device was lost"),
    RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS"),
    DeviceMemoryError("too little device memory"),
]


@pytest.mark.parametrize("error", FAILURES)
def test_an_engine_that_fails_in_the_midst_of_an_image_is_replaced_for_this_one(
    card, stack, capfd, monkeypatch, error
):
    expected = segment(stack, capfd, "--engine", "openvino")[2]["cells"]
    card.error = None
    real = Card.load
    monkeypatch.setattr(Card, "load", lambda *_, **__: Failing(error))
    code, _, record = segment(stack, capfd)
    assert (code, record["engine"]["name"], record["cells"]) == (0, "openvino", expected)
    assert any(str(error) in text for text in record["warnings"])
    monkeypatch.setattr(Card, "load", real)
    assert segment(stack, capfd)[2]["engine"]["name"] == "card"


@pytest.mark.parametrize("error", [*FAILURES, MemoryError()])
def test_one_that_was_asked_for_or_has_no_memory_of_the_cpu_is_not(
    card, stack, capfd, monkeypatch, error
):
    monkeypatch.setattr(Card, "load", lambda *_, **__: Failing(error))
    words = [] if isinstance(error, MemoryError) else ["--engine", "card"]
    assert segment(stack, capfd, *words)[0] != 0
