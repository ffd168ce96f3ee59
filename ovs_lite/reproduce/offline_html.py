"""HTML that needs nothing but itself: no script, nothing fetched from anywhere, formulas as images with their source.

What a notebook displays may hold anything (captions, class names, file names), so only known tags and attributes pass.
nbconvert's own `sanitize_html` cannot do this: it turns figures, headings, paragraphs and <details> into text, and lets
an event attribute in an image's metadata, <iframe> and //host links through.
"""

import base64
import io
import re

import nbformat
from bs4 import BeautifulSoup
from bs4.element import NavigableString, PreformattedString, Tag
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from ovs_lite.viz.explorer.inlined import contents

# tag -> attributes it may keep, next to those of "*"
ALLOWED = {
    "*": {"alt", "class", "id", "title", "style", "role", "aria-label", "colspan", "rowspan", "scope", "lang", "dir"},
    "a": {"href"}, "img": {"src", "width", "height"}, "details": {"open"}, "ol": {"start"},
    **dict.fromkeys(
        "abbr article b blockquote br caption center cite code dd del div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 "
        "hr i kbd li main mark p pre s samp section small span strong sub summary sup table tbody td tfoot th thead tr "
        "u ul var".split(), set(),
    ),
}  # fmt: skip
# removed with all they hold; any other unknown tag is only unwrapped
DANGEROUS = (
    "script style template noscript iframe frame frameset object embed applet link meta base form input button select "
    "textarea option svg math audio video source track canvas title head xmp plaintext noembed noframes"
).split()
LOCAL_LINK = re.compile(r"#|(?!/)([\w./-]|%[0-9A-Fa-f]{2})*\.html(#[\w.-]*)?$")
SIBLING_NOTEBOOK = re.compile(r"(([\w-]|%[0-9A-Fa-f]{2})+)\.ipynb$")
INLINE_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]+$")
STYLE = re.compile(r"(max-)?(width|height|text-align|vertical-align|color|background-color)\s*:\s*[\w#%. -]+$")
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\\w$])\$(?!\s)([^$\n]+?)(?<!\s)\$(?![\w$])", re.DOTALL)

FORMULA_POINTS = 12  # the size of the text around it: 16 px


def clean(fragment: str) -> str:
    """A safe HTML fragment: unknown tags unwrapped, scripts and event attributes gone, remote links left as text."""
    soup = BeautifulSoup(fragment, "html.parser")
    for special in soup.find_all(string=lambda text: isinstance(text, PreformattedString)):
        special.extract()
    for tag in soup.find_all(DANGEROUS):
        tag.decompose()
    for tag in soup.find_all(True):
        if tag.name not in ALLOWED:
            tag.unwrap()
        else:
            _clean_attributes(tag)
    return str(soup)


def _clean_attributes(tag: Tag) -> None:
    source, target = str(tag.get("src", "")), str(tag.get("href", ""))
    tag.attrs = {key: value for key, value in tag.attrs.items() if key in ALLOWED["*"] | ALLOWED[tag.name]}
    if "style" in tag.attrs:
        kept = [rule.strip() for rule in str(tag["style"]).split(";") if STYLE.match(rule.strip())]
        tag["style"] = "; ".join(kept)
    if tag.name == "img" and not INLINE_IMAGE.match(source):
        tag.replace_with(f"[image not included: {tag.get('alt') or 'no description'}]")
    if sibling := SIBLING_NOTEBOOK.match(target):
        tag["href"] = target = f"../{sibling.group(1)}/executed.html"
    if tag.name == "a" and target and not LOCAL_LINK.match(target):
        del tag["href"]
        if target.startswith(("https://", "http://")) and target not in tag.get_text():
            tag.append(f" ({target})")


def draw_formulas(fragment: str) -> str:
    r"""Replace $...$ and $$...$$ outside code by images whose alt text is the LaTeX; undrawable ones become code."""
    soup = BeautifulSoup(fragment, "html.parser")
    for text in soup.find_all(string=FORMULA):
        if text.find_parent(["pre", "code"]) is None:
            text.replace_with(*_pieces(str(text), soup))
    return str(soup)


def _pieces(text: str, soup: BeautifulSoup) -> list:
    pieces, end = [], 0
    for match in FORMULA.finditer(text):
        pieces += [NavigableString(text[end : match.start()]), _formula(match, soup)]
        end = match.end()
    return [*pieces, NavigableString(text[end:])]


def _formula(match: re.Match, soup: BeautifulSoup) -> Tag:
    block = match.group(1) is not None
    latex = " ".join((match.group(1) or match.group(2)).split())
    buffer = io.BytesIO()
    try:
        depth = math_to_image(f"${latex}$", buffer, FontProperties(size=FORMULA_POINTS), format="svg")
    except ValueError:  # matplotlib draws a subset of LaTeX: leave the source readable
        code = soup.new_tag("code", attrs={"class": "formula"})
        code.string = latex
        return code
    source = f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    style = "" if block else f"vertical-align: {-depth:.1f}pt"
    kind = "formula block" if block else "formula"
    return soup.new_tag("img", attrs={"class": kind, "alt": latex, "src": source, "style": style})


def notebook_fragment(notebook: nbformat.NotebookNode) -> str:
    """An executed notebook as a clean, offline HTML fragment. Live widgets are left out: they need a kernel.

    A canvas is its still image, until `inlined.holder` gives its content back, and the page a script of the kit's own.
    """
    copy = nbformat.from_dict({**notebook, "metadata": {k: v for k, v in notebook.metadata.items() if k != "widgets"}})
    for cell in copy.cells:
        for output in cell.get("outputs", []):
            for kind in ("application/vnd.jupyter.widget-view+json", "application/javascript"):
                output.get("data", {}).pop(kind, None)
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(copy)
    return draw_formulas(clean(body))


def canvases(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """The canvases that an executed notebook shows: see `inlined.contents`."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = (output.get("data", {}).get("text/html", "") for output in outputs)
    return {name: text for fragment in shown for name, text in contents(fragment).items()}


def highlight_css() -> str:
    """Colours of code cells, and of ANSI colours in tracebacks, on light and on dark pages."""
    ansi = {
        "red": ("#b22222", "#ff9a8f"), "green": ("#1a7f37", "#7ee787"), "yellow": ("#8a6100", "#e3b341"),
        "blue": ("#0b57d0", "#8ab4f8"), "cyan": ("#0b6e75", "#76e3ea"),
    }  # fmt: skip
    pages = []
    for place, style in enumerate(("default", "github-dark")):
        rules = [f".ansi-{name}-fg, .ansi-{name}-intense-fg {{ color: {pair[place]} }}" for name, pair in ansi.items()]
        pages.append("\n".join([HtmlFormatter(style=style).get_style_defs(".highlight"), *rules]))
    return f"{pages[0]}\n@media (prefers-color-scheme: dark) {{\n{pages[1]}\n}}"
