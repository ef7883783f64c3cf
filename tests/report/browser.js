// Runs in the page: asks axe-core, measures what is seen, and leaves the answer in the document around the frame.
function seen(node) { return node.getClientRects().length > 0; }
function answer() {
  const found = {};
  const root = document.documentElement;
  found.width = root.clientWidth;
  found.overflow = root.scrollWidth - root.clientWidth;
  found.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  found.paper = getComputedStyle(document.body).backgroundColor;
  found.sections = [...document.querySelectorAll("h2")].map(node => node.textContent);
  found.first = document.querySelector("main > p").textContent;
  found.loaded = performance.getEntriesByType("resource").map(item => item.name).filter(name => !name.startsWith("data:"));
  found.pictures = [...document.images].map(node => [node.alt.length > 0, node.naturalWidth > 0]);
  found.charts = [...document.querySelectorAll("figure")].map(node => [...node.querySelectorAll("svg")].filter(seen).length);
  found.text = Math.min(...[...document.querySelectorAll("svg text")].filter(seen).map(
    node => parseFloat(getComputedStyle(node).fontSize) * node.ownerSVGElement.getScreenCTM().a));
  found.inks = [...new Set([...document.querySelectorAll("figure .wide svg text, figure .narrow svg text")].filter(seen).filter(
    node => !node.style.fill).map(node => getComputedStyle(node).fill))];
  found.hidden_cues = [...document.querySelectorAll(".scroll")].filter(
    node => node.scrollWidth > node.clientWidth + 1 && !seen(node.previousElementSibling)).length;
  found.unreachable = [...document.querySelectorAll(".scroll, summary")].filter(
    node => { node.focus(); return document.activeElement !== node; }).length;
  const glossary = document.querySelector("details");
  found.closed = !glossary.open && !glossary.querySelector("dl").checkVisibility();
  glossary.querySelector("summary").click();
  found.opened = glossary.open && glossary.querySelector("dl").checkVisibility();
  return found;
}
window.addEventListener("load", () => axe.run(document, { resultTypes: ["violations"] }).then(result => {
  const found = answer();
  found.violations = result.violations.map(item => [item.id, item.impact, item.nodes.map(node => node.html).slice(0, 3)]);
  const note = parent.document.createElement("pre");
  note.id = "found";
  note.textContent = JSON.stringify(found);
  parent.document.getElementById("frame").replaceWith(note);
}));
