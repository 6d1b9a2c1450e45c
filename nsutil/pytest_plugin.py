"""The pytest plugin: tests in namespaces of their own.

``@pytest.mark.namespace("net", "uts", **options)`` runs a test in a forked
child, in fresh namespaces; fixtures ``ns_box``, ``ns_net`` and ``ns_lan``;
``--ns-isolate=net,uts`` for a whole run, ``--ns-leaks`` to fail tests that
leave something behind.  An ordinary user gets a USER namespace added.

Importing this module, and collecting tests, moves nobody.
"""

from __future__ import annotations

import os
import sys
import warnings

import pytest

from ._privilege import needs_user, privileged
from ._types import NSType, parse_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ._file import NamespaceFile
    from ._lan import Lan
    from ._recipe import Namespace

_ISOLATED = "NSUTIL_PYTEST_ISOLATED"
_MARKER = (
    "namespace(*types, **options): run the test in a child in fresh namespaces; "
    "types as in nsutil.Namespace, options are its options"
)
# What a fixture or a plugin raises to end a test; neither is an Exception.
_OUTCOMES = (pytest.fail.Exception, pytest.skip.Exception)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of this plugin."""
    group = parser.getgroup("nsutil", "Linux namespaces")
    group.addoption(
        "--ns-isolate",
        metavar="TYPES",
        default=None,
        help="run everything in fresh namespaces of these types (names joined by commas)",
    )
    group.addoption(
        "--ns-leaks",
        action="store_true",
        help="fail a test that leaves a namespace, mount, descriptor, thread or child behind",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker and check --ns-isolate before anything runs."""
    config.addinivalue_line("markers", _MARKER)
    types = config.getoption("--ns-isolate")
    if types is not None:
        try:
            parse_types(types.split(","))
        except ValueError as error:
            raise pytest.UsageError(f"--ns-isolate={types}: {error}") from None


def pytest_report_header() -> list[str]:
    """Say where the run is, and what is added for an ordinary user."""
    lines = []
    isolated = os.environ.get(_ISOLATED)
    if isolated:
        lines.append(f"nsutil: this run is isolated in fresh namespaces: {isolated}")
    if needs_user():
        lines.append("nsutil: not privileged, marked tests get a USER namespace (as root inside) added")
    return lines


# ------------------------------------------------------------ a whole run


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """--ns-isolate: run the same command line again, inside."""
    types = config.getoption("--ns-isolate")
    if types is None or os.environ.get(_ISOLATED) or hasattr(config, "workerinput"):
        return None
    from ._recipe import Namespace

    options = privileged({}, parse_types(types.split(",")))
    box = Namespace(**options, init=None)
    env = {**os.environ, _ISOLATED: str(box.new)}
    command = [sys.executable, "-m", "pytest", *config.invocation_params.args]
    return box.run(command, env=env, cwd=config.invocation_params.dir).returncode


# -------------------------------------------------------------- one test


def _recipe_of(item: pytest.Item) -> Namespace | None:
    """What the markers of a test ask for: all types; of options the closest."""
    from ._recipe import Namespace

    types, options = NSType(0), dict[str, object]()
    markers = list(item.iter_markers("namespace"))
    for marker in reversed(markers):
        types |= parse_types(marker.args)
        options.update(marker.kwargs)
    return Namespace(**privileged(options, types)) if markers else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A marked test: what has a wider scope here, the test itself in a child."""
    if item.get_closest_marker("namespace") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    _set_up_wider_scopes(item)
    reports = _child_reports(item)
    failed = _tear_down_wider_scopes(item, nextitem)
    if failed is not None:
        reports = [report for report in reports if report.when != "teardown"] + [failed]
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _set_up_wider_scopes(item: pytest.Item) -> None:
    """Fixtures of session, package, module and class: here, so that they are
    made once however many children use them.  A failure is kept by pytest and
    comes again in the child, where it is reported."""
    state = item.session._setupstate
    try:
        if item.parent is not None:
            state.setup(item.parent)  # type: ignore[arg-type]
        with warnings.catch_warnings():
            # Newer versions of pytest take this for a teardown, which it is not.
            warnings.filterwarnings("ignore", "Calling request.getfixturevalue", DeprecationWarning)
            for name in _wider_fixtures(item):
                item._request.getfixturevalue(name)  # type: ignore[attr-defined]
    except (Exception, *_OUTCOMES):
        pass


def _wider_fixtures(item: pytest.Item) -> Iterator[str]:
    info = getattr(item, "_fixtureinfo", None)
    for name in getattr(item, "fixturenames", ()):
        definitions = info.name2fixturedefs.get(name) if info else None
        if definitions and definitions[-1].scope != "function":
            yield name


class _Sibling:
    """Stands for a next test with the same parents: the child tears down the test alone."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def listchain(self) -> list[object]:
        return [*self._item.listchain()[:-1], self]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._item, name)


def _child_reports(item: pytest.Item) -> list[pytest.TestReport]:
    """Run the test in the child; its reports, or one that says why there are none."""
    try:
        box = _recipe_of(item)
        assert box is not None
        with warnings.catch_warnings():
            # fork() under xdist, where execnet has threads: the child is only used for this test.
            warnings.simplefilter("ignore", DeprecationWarning)
            data, warned = box.call(_run_in_child, item)
    except (Exception, *_OUTCOMES) as error:
        return [_failure(item, error, "call")]
    for warning in warned:
        warnings.showwarning(*warning)  # for the list of pytest, which counts and shows them
    hook = item.config.hook
    return [hook.pytest_report_from_serializable(config=item.config, data=report) for report in data]


def _run_in_child(item: pytest.Item) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    """The reports, and the warnings as warnings.showwarning() takes them."""
    from _pytest.runner import runtestprotocol

    plugins = item.config.pluginmanager
    debugger = plugins.unregister(name="pdbinvoke") if plugins.has_plugin("pdbinvoke") else None
    with warnings.catch_warnings(record=True) as warned:
        reports = runtestprotocol(item, log=False, nextitem=_Sibling(item))  # type: ignore[arg-type]
    for report in reports:
        if debugger is not None and report.failed:
            text = "--pdb: this test ran in a child that is gone; run it without the namespace marker to debug it"
            report.sections.append(("nsutil", text))
    hook = item.config.hook
    data = [hook.pytest_report_to_serializable(config=item.config, report=report) for report in reports]
    return data, [(*_portable(each), each.filename, each.lineno) for each in warned]


def _portable(warning: warnings.WarningMessage) -> tuple[Warning | str, type[Warning]]:
    """Message and category; of one that cannot leave the child its text."""
    import pickle

    try:
        pickle.loads(pickle.dumps((warning.message, warning.category)))
    except Exception:
        return f"{warning.category.__name__}: {warning.message}", UserWarning
    return warning.message, warning.category


def _failure(item: pytest.Item, error: BaseException, when: Any) -> pytest.TestReport:
    """A failed report for what happened around the test."""
    text = f"{type(error).__name__}: {error}"
    notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
    return pytest.TestReport(
        item.nodeid,
        item.location,
        dict.fromkeys(item.keywords, 1),
        "failed",
        f"the test's child, or its namespaces, failed:\n{text}{notes}",
        when,
    )


def _tear_down_wider_scopes(item: pytest.Item, nextitem: pytest.Item | None) -> pytest.TestReport | None:
    """What the next test does not need; the report of a teardown that failed."""
    session = item.session
    if session.shouldfail or session.shouldstop:
        nextitem = None
    state = session._setupstate
    call = pytest.CallInfo.from_call(lambda: state.teardown_exact(nextitem), when="teardown")
    if call.excinfo is None:
        return None
    report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
    return report


# ---------------------------------------------------------------- leaks


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """--ns-leaks: look before the fixtures of the test are made."""
    if item.config.getoption("--ns-leaks"):
        from ._leaks import Held

        item.stash[_HELD] = Held.now()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """--ns-leaks: look again when they are gone."""
    yield
    before = item.stash.get(_HELD, None)
    if before is not None:
        leaked = before.leaked()
        if leaked:
            pytest.fail("the test left behind:\n  " + "\n  ".join(leaked), pytrace=False)


_HELD: pytest.StashKey[Any] = pytest.StashKey()


# -------------------------------------------------------------- fixtures


@pytest.fixture
def ns_box() -> Callable[..., Namespace]:
    """Makes recipes: ``ns_box("net", hostname=...)``, with USER added for an ordinary user."""
    from ._recipe import Namespace

    def make(*types: NSType | int | str, **options: Any) -> Namespace:
        return Namespace(**privileged(options, parse_types(types)))

    return make


@pytest.fixture
def ns_net() -> Iterator[NamespaceFile]:
    """A fresh NET namespace with lo up, held while the test runs: ``with enter(ns_net): ...``."""
    from ._recipe import Namespace
    from ._types import NET

    try:
        held = Namespace(NET).create()
    except PermissionError as error:
        pytest.skip(f"{error}; @pytest.mark.namespace('net') makes the test root in namespaces of its own")
    with held:
        yield held.net


@pytest.fixture
def ns_lan() -> Iterator[Callable[..., Lan]]:
    """Makes networks: ``ns_lan(hosts=3)``, hosts joined by veth and a bridge (needs nsutil[net])."""
    pytest.importorskip("pyroute2", reason="ns_lan needs pyroute2: pip install nsutil[net]")
    from ._lan import Lan

    made: list[Lan] = []

    def make(hosts: int = 2, network: str = "10.99.0.0/24") -> Lan:
        made.append(Lan(hosts, network))
        return made[-1]

    yield make
    for lan in made:
        lan.close()
