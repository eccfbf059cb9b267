"""How tools/remote-suite reads what jest says, and holds it against what is expected."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from remote_suite.jest import write_certificate
from remote_suite.modes import MODES, Mode
from remote_suite.network import addresses
from remote_suite.results import (
    Case,
    Outcome,
    Results,
    ResultsError,
    Verdict,
    first_line,
    read_expectations,
    read_results,
)

from mediaserver.mediasoup import WORKER_VERSION

ROOT = Path(__file__).parents[3]
NAMES = [mode.name for mode in MODES]
GOOD, BAD, LEFT = Case("test-Worker", "starts"), Case("test-Worker", "ends"), Case("test-Router", "closes")


def jest(*suites: Mapping[str, Any]) -> dict[str, Any]:
    return {"testResults": list(suites)}


SAYS = "\x1b[31m\n  Error: no\x1b[39m\n at x\n  Received: 1"


def suite(name: str, *cases: tuple[str, str], message: str = "") -> dict[str, Any]:
    return {
        "name": f"/somewhere/{name}.js",
        "message": message,
        "assertionResults": [
            {
                "fullName": case,
                "status": status,
                "failureMessages": [SAYS] if status == "failed" else [],
            }
            for case, status in cases
        ],
    }


def verdict(
    outcomes: Mapping[Case, Outcome],
    expected: Mapping[Case, str] | None = None,
    *,
    total: int = 2,
    part: bool = False,
) -> list[str]:
    return list(Verdict(Results(outcomes), expected or {}, total, part).problems())


# -- jest's result ----------------------------------------------------------------------------------------


def test_every_case_is_read_with_its_outcome():
    found = read_results(
        jest(
            suite("test-Worker", ("starts", "passed"), ("ends", "failed")),
            suite("test-Router", ("closes", "pending"), ("opens", "todo")),
        )
    )
    assert found.outcomes == {
        GOOD: "passed",
        BAD: "failed",
        LEFT: "skipped",
        Case("test-Router", "opens"): "skipped",
    }
    assert found.messages == {BAD: "Error: no; Received: 1"}
    assert not found.broken


def test_a_file_that_could_not_be_run_is_told():
    found = read_results(
        jest(suite("test-Worker", message="\n ● Cannot find module\n  x"), suite("test-Router"))
    )
    assert found.broken == {"test-Worker": "● Cannot find module", "test-Router": "it has no case"}


@pytest.mark.parametrize("document", [{}, {"testResults": [{}]}, {"testResults": [1]}, {"testResults": None}])
def test_what_is_no_result_is_refused(document: dict[str, Any]):
    with pytest.raises(ResultsError, match="cannot be read"):
        read_results(document)


def test_first_line_of_nothing_is_empty():
    assert first_line("\n \x1b[31m\x1b[39m\n") == ""


# -- the verdict ------------------------------------------------------------------------------------------


def test_everything_passed_as_expected():
    assert verdict({GOOD: "passed", BAD: "passed"}) == []


def test_an_expected_failure_is_no_problem():
    assert verdict({GOOD: "passed", BAD: "failed"}, {BAD: "by its nature"}) == []


def test_an_unexpected_failure_is_a_problem():
    assert verdict({GOOD: "passed", BAD: "failed"}) == ["failed: test-Worker: ends: no reason given"]


@pytest.mark.parametrize("outcome", ["passed", "skipped"])
def test_a_case_that_does_not_fail_as_expected_is_a_problem(outcome: Outcome):
    assert verdict({GOOD: "passed", BAD: outcome}, {BAD: "by its nature"}) == [
        f"{outcome}, yet expected to fail: test-Worker: ends (by its nature)"
    ]


def test_a_skipped_case_is_a_problem():
    assert verdict({GOOD: "passed", BAD: "skipped"}) == ["skipped: test-Worker: ends"]


def test_too_few_cases_are_a_problem():
    assert verdict({GOOD: "passed"}) == ["1 cases were run, 2 were expected"]


def test_an_expected_case_that_there_is_not_is_a_problem():
    assert verdict({GOOD: "passed", BAD: "passed"}, {LEFT: "by its nature"}) == [
        "no such case: test-Router: closes (expected to fail: by its nature)"
    ]


def test_of_a_part_nothing_is_missing():
    assert verdict({GOOD: "passed"}, {LEFT: "by its nature"}, part=True) == []


def test_a_file_that_could_not_be_run_is_a_problem():
    results = Results({GOOD: "passed"}, broken={"test-Router": "no module"})
    assert list(Verdict(results, {}, 1).problems()) == ["could not be run: test-Router: no module"]


def test_workers_that_run_on_are_a_problem():
    verdict = Verdict(Results({GOOD: "passed"}), {}, 1, left=["3f", "4a"])
    assert list(verdict.problems()) == ["workers run on after the suite: 3f, 4a"]


def test_the_document_has_figures_and_reasons():
    results = Results({GOOD: "passed", BAD: "failed", LEFT: "failed"}, {LEFT: "Error: no"})
    document = Verdict(results, {BAD: "by its nature"}, 3).document()
    assert (document["total"], document["passed"], document["skipped"]) == (3, 1, [])
    assert document["failed"] == [
        {"file": "test-Router", "name": "closes", "expected": False, "reason": "Error: no"},
        {"file": "test-Worker", "name": "ends", "expected": True, "reason": "by its nature"},
    ]
    assert document["problems"] == ["failed: test-Router: closes: Error: no"]


# -- what is expected -------------------------------------------------------------------------------------

ENTRY = """
total = 2
[[failures]]
modes = ["netns-Keep", "netns-Rewrite"]
file = "test-Worker"
cases = ["ends"]
reason = "by its nature"
"""


def test_expectations_are_by_mode():
    found = read_expectations(ENTRY, NAMES)
    assert found.total == 2
    assert found.of("netns-Keep") == found.of("netns-Rewrite") == {BAD: "by its nature"}
    assert found.of("here-Keep") == found.of("direct") == {}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"by its nature"', '" "', "needs its reason"),
        ('"netns-Keep"', '"elsewhere"', "there is no mode elsewhere, but direct, here-Keep"),
        ('["ends"]', '["ends", "ends"]', "expected twice in mode netns-Keep: test-Worker: ends"),
        ("total = 2", "", "cannot be read"),
        ("file = ", "files = ", "cannot be read"),
        ("[[failures]]", "[[failures", "cannot be read"),
    ],
)
def test_expectations_that_cannot_be_are_refused(before: str, after: str, message: str):
    with pytest.raises(ResultsError, match=message):
        read_expectations(ENTRY.replace(before, after), NAMES)


def test_our_own_list_can_be_read():
    found = read_expectations((ROOT / "tests/remote_suite/expected.toml").read_text(), NAMES)
    assert found.total == 202
    assert not found.of("direct")
    assert not found.of("here-Keep")
    assert len(found.of("netns-RewritePipes")) <= 3


# -- what it needs ----------------------------------------------------------------------------------------


def test_modes_have_names():
    assert Mode().name == "direct"
    assert Mode("Keep").name == "here-Keep"
    assert Mode("Rewrite", netns=True).name == "netns-Rewrite"
    assert len(set(NAMES)) == len(NAMES) == 7


@pytest.mark.parametrize(
    ("number", "pair"),
    [
        (0, ("198.18.0.1", "198.18.0.2")),
        (1, ("198.18.0.5", "198.18.0.6")),
        ((1 << 14) - 1, ("198.18.255.253", "198.18.255.254")),
        (1 << 14, ("198.18.0.1", "198.18.0.2")),
    ],
)
def test_a_pair_of_addresses_is_in_a_network_of_its_own(number: int, pair: tuple[str, str]):
    assert addresses(number) == pair


def test_the_certificate_goes_with_its_key_and_stays(tmp_path: Path):
    write_certificate(tmp_path)
    texts = [(tmp_path / name).read_bytes() for name in ("dtls-cert.pem", "dtls-key.pem")]
    certificate = x509.load_pem_x509_certificate(texts[0])
    key = serialization.load_pem_private_key(texts[1], password=None)
    assert certificate.public_key() == key.public_key()
    write_certificate(tmp_path)
    assert (tmp_path / "dtls-cert.pem").read_bytes() == texts[0]


def test_the_suite_is_of_the_workers_version():
    package = json.loads((ROOT / "tests/remote_suite/package.json").read_text())
    assert package["dependencies"]["mediasoup"] == WORKER_VERSION


def test_the_lock_file_names_no_registry():
    assert "resolved" not in (ROOT / "tests/remote_suite/package-lock.json").read_text()
