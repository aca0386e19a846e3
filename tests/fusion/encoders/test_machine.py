import pytest

from barycenter.fusion.encoders import machine
from barycenter.fusion.encoders.machine import describe_processor, machine_kind

EPYC = (
    "processor\t: 0\nmodel name\t: AMD EPYC 9R14 96-Core Processor\nflags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni\n"
)


@pytest.mark.parametrize(
    ("cpuinfo", "kind"),
    [
        (EPYC, "AMD EPYC 9R14, avx2 avx512f avx512_vnni"),
        (EPYC + EPYC, "AMD EPYC 9R14, avx2 avx512f avx512_vnni"),
        ("model name : Intel(R) Xeon(R) Platinum 8488C CPU @ 2.4GHz\nflags : amx_bf16 avx2\n",
         "Intel Xeon Platinum 8488C, avx2 amx_bf16"),
    ],
)  # fmt: skip
def test_a_processor_is_named_by_model_and_instruction_sets(cpuinfo, kind):
    assert describe_processor(cpuinfo) == kind


def test_where_the_system_says_nothing_python_is_asked(monkeypatch):
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    assert describe_processor("") == "arm64"
    assert describe_processor("Features\t: fp asimd sve\n") == "arm64, asimd sve"


def test_a_gpu_is_named_by_its_driver(monkeypatch, tmp_path):
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 5\n")
    monkeypatch.setattr(machine, "_GPUS", tmp_path)
    monkeypatch.setattr(machine.sys, "modules", {})
    assert machine._gpu() == "NVIDIA H200"
    monkeypatch.setattr(machine, "_GPUS", tmp_path / "none")
    assert machine._gpu() == "GPU"


def test_this_machine_has_a_kind():
    assert machine_kind("cpu") == machine_kind("cpu") != ""
