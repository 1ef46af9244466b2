"""Schemes as TOML: exactly back, and every mistake named."""

from __future__ import annotations

from dataclasses import replace

import pytest

import clipq
from clipq.arithmetic.precisions import PRECISIONS
from clipq.arithmetic.scheme_files import read_scheme, read_schemes, write_schemes
from clipq.arithmetic.schemes import FALLBACKS, Scheme
from clipq.arithmetic.specs import QuantSpec
from clipq.errors import OutputError, SchemeError

INT8, FP16, FP32 = PRECISIONS["int8"], PRECISIONS["fp16"], PRECISIONS["fp32"]
WEIGHT_ONLY = PRECISIONS["int8-weight-only"]
GROUPS = Scheme("groups", weights=QuantSpec(granularity="group", group_size=32), embeddings=None)
EXCEPTIONS = (("visual.*.0.*", FP16), ("*.attn", WEIGHT_ONLY), ("a", GROUPS), ("b", replace(FP16, name="half")))
SCHEMES = {
    **PRECISIONS,
    **{f"int8 {name}": replace(INT8, fallback=name) for name in FALLBACKS},
    "mixed": replace(INT8, name="mixed", exceptions=EXCEPTIONS, steps=("turn-values", "gptq")),
    "mixed fp16": replace(INT8, name="mixed", fallback="fp16", exceptions=EXCEPTIONS[:1]),
    "best without steps": replace(PRECISIONS["int8-best"], steps=()),
    "best with one step": replace(PRECISIONS["int8-best"], steps=("gptq",)),
    "named like another": replace(WEIGHT_ONLY, name="int8"),
    "groups": replace(GROUPS, exceptions=EXCEPTIONS),
    "odd names": replace(INT8, name='a"b\\c\n\x7f\u2028 猫 😀 \x00', exceptions=(('[!a]*\'"""#', FP32),)),
    "no name": replace(INT8, name=""),
    "float attention": replace(INT8, attention="float"),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_comes_back_as_it_was(name, tmp_path):
    path = tmp_path / "scheme.toml"
    write_schemes(SCHEMES[name], path)
    assert read_scheme(path) == SCHEMES[name]
    again = path.read_bytes()
    write_schemes(read_scheme(path), path)
    assert path.read_bytes() == again


def test_both_towers_in_one_file(tmp_path):
    path = tmp_path / "both.toml"
    both = {"image": SCHEMES["mixed"], "text": SCHEMES["groups"]}
    write_schemes(both, path)
    assert read_schemes(path) == both
    with pytest.raises(SchemeError, match="image, text"):
        read_scheme(path)


def written(tmp_path, text: str):
    path = tmp_path / "s.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_people_write(tmp_path):
    text = 'name = "mixed"\nprecision = "int8"\n[[modules]]\npattern = "visual.*.0.*"\nprecision = "fp16"\n'
    scheme = read_scheme(written(tmp_path, text))
    assert scheme == replace(INT8, name="mixed", fallback="fp16", exceptions=(("visual.*.0.*", FP16),))
    assert scheme.at("visual.blocks.0.fc1") == FP16 and scheme.at("visual.blocks.1.fc1") is scheme
    assert read_scheme(written(tmp_path, 'precision = "int8-best"')) == PRECISIONS["int8-best"]
    only = read_schemes(written(tmp_path, '[image]\nprecision = "int8"'))
    assert only == {"image": INT8}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a precision"),
        ('precison = "int8"', "unknown key of the file 'precison'. Did you mean 'precision'?"),
        ('precision = "int-8"', "unknown precision 'int-8'. Did you mean 'int8'?"),
        ("precision = 8", "unknown precision 8"),
        ('precision = "int8"\nfallback = "fp8"', "unknown fallback precision 'fp8'"),
        ('precision = "int8"\nsteps = "gptq"', "give a tuple"),
        ('precision = "int8"\nname = 3', "name=3 is not allowed"),
        ('precision = "int8"\n[weights]\nbits = 8', "needs a precision, or else"),
        ("[weights]\nbit = 8", "unknown key of weights of the file 'bit'. Did you mean 'bits'?"),
        ('[weights]\ngranularity = "chanel"', "Did you mean 'channel'?"),
        ("weights = 3", "weights is 3; give a table"),
        ('precision = "int8"\n[modules]\npattern = "a"', "give [[modules]] tables"),
        ('precision = "int8"\n[[modules]]\nprecision = "fp16"', "[[modules]] 1 of the file has no pattern"),
        ('precision = "int8"\n[[modules]]\npatern = "a"', "unknown key of [[modules]] 1 of the file 'patern'"),
        ('precision = "int8"\n[[modules]]\npattern = "a"\nsteps = []', "unknown key of [[modules]] 1"),
        ('precision = "int8"\n[[modules]]\npattern = "a"\nprecision = "int8-best"', "chosen for a whole tower"),
        ('precision = "fp16"\n[[modules]]\npattern = "a"\nprecision = "int8"', "stays float, and some"),
        ('[image]\nprecision = "int8"\n[txt]\nprecision = "int8"', "Did you mean 'text'?"),
        ('[image]\nprecision = "int8"\n[image.wieghts]\n', "of image 'wieghts'. Did you mean 'weights'?"),
        ("image = 3", "image is 3; give a table"),
        ("precision = int8", "not valid TOML"),
        ('precision = "int8"\nprecision = "int8"', "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_every_mistake_is_named_with_the_file(text, words, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(SchemeError) as caught:
        read_schemes(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_two_float_precisions_need_a_word(tmp_path):
    modules = "".join(f'[[modules]]\npattern = "{one}"\nprecision = "{one}"\n' for one in ("fp16", "bf16"))
    with pytest.raises(SchemeError, match="bf16 and fp16, but what stays float"):
        read_scheme(written(tmp_path, f'precision = "int8"\n{modules}'))
    assert read_scheme(written(tmp_path, f'precision = "int8"\nfallback = "fp32"\n{modules}')).fallback == "fp32"


def test_files_that_are_none(tmp_path):
    for path, words in ((tmp_path / "none.toml", "No such file"), (tmp_path, "cannot be read")):
        with pytest.raises(SchemeError, match=words):
            read_scheme(path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(SchemeError, match="not valid TOML"):
        read_scheme(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(SchemeError, match="larger than"):
        read_scheme(tmp_path / "large.toml")


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(SchemeError, match="UTF-8"):
        write_schemes(replace(INT8, name="\udcff"), tmp_path / "a.toml")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        write_schemes(INT8, tmp_path / "folder")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_it_is_what_quantize_takes(tmp_path):
    from tiny_models import build

    text = 'precision = "int8"\nname = "mixed"\n[[modules]]\npattern = "visual.*.0.mlp.*"\nprecision = "fp32"\n'
    model = clipq.quantize(clipq.Model(build("open_clip CLIP")), read_scheme(written(tmp_path, text)))
    assert model.precision_name == "mixed"
    assert type(model.module.visual.transformer.resblocks[0].mlp.c_fc).__name__ == "Linear"
