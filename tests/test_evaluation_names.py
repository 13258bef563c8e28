"""Names of models: what they mean, and what is refused by which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import InputError
from ringfence.evaluation.fingerprints import of_model
from ringfence.evaluation.names import full_name, is_ours, parse, split, with_options

engines = st.one_of(
    st.just("embedded"),
    st.text(min_size=1, max_size=20).map(lambda text: f"hf:{text}?"),
    st.text("abc/:.#-_%= 0", max_size=20).map(lambda text: f"http://host/v1#{text}"),
)
values = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": st.integers(1, 9999),
            "temperature": st.floats(0, 10, allow_nan=False),
            "seed": st.integers(0, 2**40),
            "threads": st.integers(1, 64),
            "tokenizer": st.text(min_size=1, max_size=20),
            "prompt-only": st.booleans(),
        },
    )
)


@given(engine=engines, options=values)
def test_what_is_written_into_a_name_is_read_out_of_it(engine, options):
    bare = engine.removesuffix("?")
    name = with_options(engine, options)
    parsed = parse(full_name(name))
    assert parsed.engine == bare
    given = dict(options)
    assert parsed.prompt_only is bool(given.pop("prompt-only", False))
    for key, value in given.items():
        where = parsed.opening if key == "threads" else parsed.settings
        found = parsed.opening["threads"] if key == "threads" else getattr(where, key, None)
        assert (found if found is not None else getattr(parsed.settings.options, key)) == value


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_an_error_of_ours(text):
    try:
        assert parse(text).engine
    except InputError as error:
        assert str(error).startswith(f"model {text}: ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("embedded?decoder", "'decoder' is no key=value"),
        ("embedded?principal=rings", "unknown key principal. Did you mean principle"),
        ("embedded?decoder=guarded", "add a principle"),
        ("embedded?decoder=rein&principle=rings", "decoder: Input should be 'plain'"),
        ("embedded?n=8&n=9", "n is given twice"),
        ("embedded?n=0", "n: Input should be greater"),
        ("embedded?budget.token=3", "Did you mean budget.tokens"),
        ("embedded?search.c=x", "search"),
        ("embedded?policy=nobody", "unknown policy 'nobody'"),
        ("embedded?threads=0", "threads: must be a number above 0"),
        ("embedded?prompt-only=maybe", "prompt-only: must be true or false"),
        ("embedded?engine=hf:x", "unknown key engine"),
        ("embedded?principle=rings&principle=harmless", "given 2 times"),
        ("gpt-9", "unknown engine 'gpt-9'"),
        ("embedded?judge=embedded", "judge: nothing to judge by; name a principle"),
        ("embedded?principle=rings&judge=gpt-9", "judge: model gpt-9: unknown engine"),
        ("embedded?principle=rings&judge=hf:m%3Fdecoder%3Drain", "judge: decoder is no option"),
        ("embedded?principle=rings&judge=hf:m%3Fjudge%3Dembedded", "judge: judge is no option"),
    ],
)
def test_a_name_that_means_nothing_says_why(name, words):
    with pytest.raises(InputError, match="^model ") as caught:
        parse(name)
    assert words in str(caught.value)


def test_the_query_of_an_address_may_stand_before_or_behind_the_model():
    one = parse("http://host:1/v1#org/model?max_tokens=7&budget.seconds=9")
    other = parse("ringfence/http://host:1/v1?max_tokens=7&budget.seconds=9#org/model")
    assert one == other
    assert one.engine == "http://host:1/v1#org/model"
    assert one.settings.options.budget.seconds == 9


def test_evaluation_is_greedy_unless_answers_are_drawn_to_choose_from():
    def temperature(query: str) -> float:
        return parse(f"embedded?{query}").settings.options.temperature

    assert temperature("decoder=plain") == 0
    assert temperature("decoder=guarded&principle=rings") == 0
    assert temperature("decoder=best-of-n&principle=rings") == 0.7
    assert temperature("decoder=plain&temperature=0.3") == 0.3


def test_options_come_as_arguments_too_but_not_twice():
    assert parse("embedded", {"max_tokens": 9}).settings.options.max_tokens == 9
    with pytest.raises(InputError, match="max_tokens is given twice"):
        parse("embedded?max-tokens=8", {"max_tokens": 9})
    with pytest.raises(InputError, match="gives decoder already; leave out --decoder"):
        with_options("embedded?decoder=plain", {"decoder": "rain"})


def test_ours_are_known_with_and_without_the_prefix():
    assert is_ours("embedded?x=1") and is_ours("hf:a/b") and is_ours("ringfence/whatever")
    assert not is_ours("openai-api/hf/x") and not is_ours("hf/openai-community/gpt2")
    assert full_name("http://h/v1") == "ringfence/http://h/v1"
    assert full_name("mockllm/model") == "mockllm/model"
    assert split("hf:a?b?n=3") == ("hf:a?b", [("n", "3")])


def test_a_chat_template_is_told_what_stands_in_the_name():
    name = parse("hf:m?template_options.enable_thinking=false&template_options.date_string=1 May")
    assert name.opening["template_options"] == {"enable_thinking": False, "date_string": "1 May"}
    with pytest.raises(InputError, match="template_options"):
        parse("hf:m?template_options=x")


def test_another_model_may_judge_and_its_options_are_its_own():
    judge = "embedded?adapter=a b&rings_strength=0.5"
    name = parse(with_options("hf:m?adapter=x", {"principle": ["rings"], "judge": judge}))
    assert name.opening == {"adapter": "x"}
    assert name.judge == parse(judge)
    assert name.judge.opening == {"adapter": "a b", "rings_strength": 0.5}
    assert parse("embedded?principle=rings").judge is None


def test_a_packaged_principle_is_no_folder_of_that_name(tmp_path, monkeypatch):
    """A run in `rings/` would have its own lock among the files of the model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rings").mkdir()
    (tmp_path / "rings" / "run.lock").touch()
    (tmp_path / "own.yaml").touch()
    for principle, files in (("rings", []), ("own.yaml", ["principle/own.yaml"])):
        options = {"principle": [principle], "adapter": "none"}
        assert list(of_model(parse(with_options("embedded", options)))) == files


def test_a_policy_is_hashed_as_what_it_says(tmp_path):
    file, hashes = tmp_path / "policy.yaml", []
    for ring in ("customer", "company"):
        lines = [
            "name: own",
            f"rings: [company, {'customer, ' if ring == 'customer' else ''}model]",
        ]
        lines.append(f"roles: {{system: company, user: {ring}, assistant: model, tool: {ring}}}")
        file.write_text("\n".join(lines))
        hashes.append(of_model(parse(f"embedded?adapter=none&policy={file}"))["policy"])
    assert hashes[0] != hashes[1]
    assert "policy" not in of_model(parse("embedded?adapter=none&policy=harmony"))


def test_the_files_of_another_judge_are_hashed_too(tmp_path):
    adapter = tmp_path / "judge.gguf"
    hashes = []
    for content in (b"one", b"two"):
        adapter.write_bytes(content)
        options = {"principle": ["rings"], "judge": f"embedded?adapter={adapter}"}
        hashes.append(
            of_model(parse(with_options("embedded", options)))["judge/adapter/judge.gguf"]
        )
    assert hashes[0] != hashes[1]
