// Runs in the page, and returns what is seen there. Sizes are in CSS pixels.
() => {
  const all = (where, from = document) => [...from.querySelectorAll(where)];
  const seen = node => node.getClientRects().length > 0 && node.checkVisibility();
  const style = (node, name) => getComputedStyle(node)[name];
  const columns = node => [...node.cells].map(cell => cell.textContent.trim());
  const root = document.documentElement;

  // What sets a curve or bar of a legend apart, without its colour: dashes, hatching, and the shape of its marks.
  function looks(shape) {
    const own = shape.style;
    if (shape.tagName === "use") return document.querySelector(shape.getAttribute("xlink:href")).getAttribute("d");
    return [shape.tagName, own.strokeDasharray, own.fill.startsWith("url") ? "hatched" : ""].join(" ");
  }
  function legend(group) {
    const entries = [];
    let shapes = [];
    for (const node of all("path, use, text", group)) {
      if (node.tagName === "text") { entries.push([node.textContent, shapes.sort().join("|")]); shapes = []; }
      else shapes.push(looks(node));
    }
    return entries;
  }

  return {
    width: root.clientWidth,
    overflow: root.scrollWidth - root.clientWidth,
    paper: style(document.body, "backgroundColor"),
    headings: all("h2").map(node => node.textContent),
    scripts: document.scripts.length,
    charts: all("figure").map(node => all("svg", node).filter(seen).length),
    named: all("svg").filter(seen).map(node => node.getAttribute("role") + ": " + node.getAttribute("aria-label")),
    smallest: Math.min(...all("svg text").filter(seen).map(
      node => parseFloat(style(node, "fontSize")) * node.ownerSVGElement.getScreenCTM().a)),
    inks: [...new Set(all("svg text").filter(node => seen(node) && !node.style.fill).map(node => style(node, "fill")))],
    legends: all('svg g[id*="legend_"]').filter(seen).map(legend),
    tables: all(".scroll").map(node => ({
      name: node.getAttribute("aria-label"),
      scrolls: node.scrollWidth > node.clientWidth + 1,
      cue: seen(node.querySelector(".cue")),
      head: columns(node.querySelector("thead tr")),
      rows: all("tbody tr", node).map(columns),
    })),
    groups: all(".group").map(node => ({
      attacker: node.parentElement.previousElementSibling.textContent,
      title: node.querySelector("h4").textContent,
      captions: all("li p", node).map(item => item.innerText),
      images: all("img", node).map(item => ({ alt: item.alt, drawn: item.naturalWidth, bytes: item.src.length,
                                              embedded: item.src.startsWith("data:image/png;base64,") })),
    })),
    words: all("details.plain li").map(node => node.textContent),
    glossary: seen(document.querySelector("details:not(.plain) dl")),
    reachable: all("[tabindex], summary, a, button, input").length,
  };
}
