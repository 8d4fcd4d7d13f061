"""The HTML page of a picture: its SVG, tooltips, a legend that hides curves, and a zoom."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
body { margin: 0; background: white; }
svg { display: block; width: 100vw; height: 100vh; cursor: crosshair; }
[id^="legend-"] { cursor: pointer; }
#text { position: fixed; display: none; padding: 0.3rem 0.5rem; font: 13px/1.4 "DejaVu Sans", system-ui, sans-serif;
        background: #222; color: white; border-radius: 3px; white-space: pre-line; pointer-events: none; }
"""

_SCRIPT = """
const svg = document.querySelector("svg"), box = document.getElementById("text"), hidden = new Set();
const whole = svg.getAttribute("viewBox").split(" ").map(Number);
let view = [...whole], grip = null;
const at = event => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
const look = to => { view = to; svg.setAttribute("viewBox", to.join(" ")); };
function hover(event) {
  const here = at(event);
  let text = null, near = 20 / svg.getScreenCTM().a;  // 20 pixels
  for (const [entry, own] of Object.entries(points)) if (!hidden.has(entry)) for (const [x, y, content] of own) {
    const far = Math.hypot(x - here.x, y - here.y);
    if (far < near) [near, text] = [far, content];
  }
  box.style.display = text === null ? "none" : "block";
  box.textContent = text;
  box.style.left = Math.min(event.clientX + 12, innerWidth - box.offsetWidth - 4) + "px";
  box.style.top = Math.min(event.clientY + 12, innerHeight - box.offsetHeight - 4) + "px";
}
svg.addEventListener("pointermove", event => {
  if (!grip) return hover(event);
  const here = at(event);
  look([view[0] + grip.x - here.x, view[1] + grip.y - here.y, view[2], view[3]]);
});
svg.addEventListener("pointerdown", event => { grip = at(event); });
addEventListener("pointerup", () => { grip = null; });
svg.addEventListener("wheel", event => {
  event.preventDefault();
  const here = at(event), by = event.deltaY < 0 ? 0.8 : 1.25;
  look([here.x + (view[0] - here.x) * by, here.y + (view[1] - here.y) * by, view[2] * by, view[3] * by]);
}, { passive: false });
svg.addEventListener("dblclick", () => look([...whole]));
for (const label of document.querySelectorAll('[id^="legend-"]')) label.addEventListener("click", () => {
  const entry = label.id.slice(7), show = hidden.delete(entry);
  if (!show) hidden.add(entry);
  label.style.opacity = show ? 1 : 0.4;
  for (const part of document.querySelectorAll(`[id="entry-${entry}"]`)) part.style.display = show ? "" : "none";
});
"""


def as_page(title: str, svg: str, points: Mapping[int, Sequence[Any]]) -> str:
    """Return the self-contained HTML page of ``svg``, a picture with elements ``legend-N`` and ``entry-N``.

    ``points`` maps the number N of the legend's entry, or -1, to (x, y, text) of each point, in the SVG's units.
    """
    name = html.escape(title, quote=False)
    data = json.dumps(points, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
        f'<style>{_STYLE}</style></head>\n<body>\n{svg[svg.index("<svg") :]}<div id="text"></div>\n'
        f"<script>\nconst points = {data};{_SCRIPT}</script>\n</body></html>\n"
    )
