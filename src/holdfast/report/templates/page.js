// What every page can do: tables that sort by a click or a key, a field that keeps rows, dark or light.
document.querySelectorAll("table[data-sort]").forEach(table => {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const sort = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach(h => h.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = row => {
        const c = row.cells[column], v = c.dataset.v ?? c.textContent, n = parseFloat(v);
        return isNaN(n) ? v : n;
      };
      [...table.tBodies[0].rows].sort((a, b) => {
        const x = value(a), y = value(b);
        return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      }).forEach(row => table.tBodies[0].append(row));
    };
    head.tabIndex = 0;
    head.setAttribute("aria-sort", "none");
    head.title = "sort";
    head.addEventListener("click", sort);
    head.addEventListener("keydown", e => {
      if (e.key === "Enter" || e.key === " ") { e.preventDefault(); sort(); }
    });
  });
});
const filter = document.getElementById("filter");
if (filter) filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(",").map(w => w.trim()).filter(Boolean);
  document.querySelectorAll("table[data-sort]").forEach(table => {
    const named = table.closest("section").querySelector("h3");
    const heading = named ? table.closest(".scroll").previousElementSibling : null;
    const around = heading && heading.tagName === "H3" ? heading.textContent : "";
    [...table.tBodies[0].rows].forEach(row => {
      const text = (around + " " + row.textContent).toLowerCase();
      row.hidden = !words.every(w => text.includes(w));
    });
  });
});
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
