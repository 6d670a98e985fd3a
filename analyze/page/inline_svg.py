"""figure -> its part of a page: an SVG whose colours follow the page's scheme, with what its marks say under the pointer."""

import re
from base64 import b64encode
from html import escape

from matplotlib.figure import Figure

from analyze.figures.catalogue import drawn
from analyze.figures.layout import Captioned
from analyze.figures.style import with_css_variables
from analyze.figures.tooltips import marks
from analyze.page.binary_payload import packed

Panels = list[dict[str, object]]
LARGEST_SVG = 400_000  # bytes; a larger figure goes in as a PNG


def inline(captioned: Captioned, name: str, *, links: bool = True) -> str:
    """The figure as HTML; with `links`, circles and curves that are neurons lead to the neurons of this page."""
    picture, panels = pictured(captioned.figure, name, links=links)
    words = escape(name.replace("_", " "))
    return (
        f'<figure id="figure-{name}" aria-label="{words}"><div class=drawing tabindex=0 role=group '
        f'aria-label="{words}: arrow keys tell values, Enter enlarges">{picture}</div>'
        f'<script type="text/plain" class=marks>{packed(panels, {})}</script>'
        f"<figcaption>{escape(captioned.caption)}</figcaption></figure>"
    )


def pictured(figure: Figure, name: str, *, links: bool = True) -> tuple[str, Panels]:
    """The figure's picture and its panels with all that can be pointed at."""
    picture = _picture(figure, name)
    panels = marks(figure)  # after drawing, which is what lays a figure out
    if not links:
        picture = re.sub(r'(xlink:)?href="#L\d+N\d+"', "", picture)
        for series in (series for panel in panels for series in panel["series"]):
            series["words"], series["links"] = series["words"] or [link.lstrip("#") for link in series["links"]], []
    return picture, panels


def _picture(figure: Figure, name: str) -> str:
    svg = drawn(figure, "svg").decode()
    if len(svg) <= LARGEST_SVG:
        return _bare(svg[svg.index("<svg") :], name).replace("<svg ", "<svg aria-hidden=true ", 1)
    width, height = (round(inches * 96) for inches in figure.get_size_inches())
    return f'<img width={width} height={height} alt="" src="data:image/png;base64,{b64encode(drawn(figure, "png")).decode()}">'


def _bare(svg: str, name: str) -> str:
    """Without metadata and needless digits, with ids that are the page's only ones, and the palette by name."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#(?!L\d+N\d+")|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag.group()), svg)
    svg = re.sub(r"\n\s*", "\n", svg).replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    return with_css_variables(svg)
