"""Closing lines of a search: locations and the next commands, ready to paste into a shell."""

from __future__ import annotations

from ladder_search.bundles.bundle import PLUGIN
from ladder_search.bundles.top import bundle_name
from ladder_search.driver.search import SearchResult
from ladder_search.errors import command_line
from ladder_search.models import find_family
from ladder_search.record.trial import best_trials
from ladder_search.tracking.address import default_store, without_password


def next_steps(result: SearchResult) -> list[str]:
    """Return the lines; commands name the store unless it is the root's default."""
    name, root = result.folder.path.name, result.folder.path.parent
    address, give_password = without_password(result.store) if result.store != default_store(root) else (None, "")

    def line(what: str, command: str, *words: object, **options: object) -> str:
        return f"{what:<15} {command_line(command, *words, **options, root=root, tracking=address)}"

    lines = [f"Study folder    {result.folder.path}", f"Tracking store  {result.store}", ""]
    if not result.stored:
        lines.append("note: the store has not received everything yet; `send the rest` does it")
        lines.append(line("send the rest", "sync", name))
    if result.unfinished:
        lines.append(line("go on with it", "search", resume=True, name=name))
    if result.store.startswith(("http://", "https://")):  # a server has its own pages
        lines.append(f"look at it      {address} in a browser")
    else:
        lines.append(line("look at it", "ui"))
    best = best_trials(result.records, result.study.measure)
    if best:
        bundles = f"configs/{name}"
        export = command_line("export", name, top=3, output=bundles, root=root)
        lines.append(f"keep the best   {export}")
        bundle = f"{bundles}/{bundle_name(1, best[0])}"
        plugin = find_family(result.study.family).plugin
        copy = f"{bundle}/{PLUGIN}" if plugin and plugin.is_file else None
        if result.has_tests:
            lines.append(line("train the best", "train", bundle, seeds=10, plugin=copy))
            lines.append(f"                (all training data, test {result.study.measure.title})")
        else:
            lines.append(
                "note: the data have no test rows, which final trainings need; state data.test_file or data.test"
            )
    if give_password:
        lines.append(f"note: the password of the store is not printed; {give_password} before you use these commands")
    return [*lines, *(f"note: {problem}" for problem in result.problems[:5])]
