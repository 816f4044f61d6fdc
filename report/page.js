"use strict";
// Tables are whole without this script. It sorts and filters them, saves one as CSV, and says how old the page is.
(() => {
  const made = document.getElementById("made");
  const minutes = Math.max(0, Math.round((Date.now() - Date.parse(made.dateTime)) / 60000));
  const [count, unit] = minutes < 120 ? [minutes, "minute"] : minutes < 2880 ? [Math.round(minutes / 60), "hour"]
    : [Math.round(minutes / 1440), "day"];
  document.getElementById("age").textContent = `, ${count} ${unit}${count === 1 ? "" : "s"} ago`;

  // what was sound yesterday may not be so today
  if (minutes > 26 * 60) {
    const health = document.getElementById("health");
    health.classList.replace("good", "warning");
    health.firstElementChild.textContent = `This page is ${count} ${unit}${count === 1 ? "" : "s"} old; it said:`;
  }

  const text = (cell) => cell.querySelector(".null") ? "" : cell.textContent;

  // Excel takes its separators from the system's language. Where the decimal point is a comma, it expects semicolons.
  const comma = (1.5).toLocaleString().includes(",");
  const separator = comma ? ";" : ",";
  const field = (cell) => {
    let value = text(cell);
    if (cell.classList.contains("number")) {
      value = comma ? value.replace(".", ",") : value;
    } else if (/^[=+\-@\t\r]/.test(value)) {
      value = `'${value}`;  // otherwise Excel would run it as a formula
    }
    return value.includes(separator) || /["\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  };
  const save = (table) => {
    const lines = [...table.rows].filter((row) => !row.hidden)
      .map((row) => [...row.cells].map(field).join(separator));
    const link = document.createElement("a");
    // Excel recognizes UTF-8 by this mark
    link.href = URL.createObjectURL(new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv" }));
    link.download = `${table.dataset.name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const sort = (table, head, place) => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const isNumber = head.classList.contains("number");
    const compare = (a, b) => {
      const [x, y] = [text(a.cells[place]), text(b.cells[place])];
      if (x === "" || y === "") return (x === "") - (y === "");  // empty cells stay at the end
      const order = isNumber ? Number(x) - Number(y) : x.localeCompare(y);
      return up ? order : -order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  };

  for (const table of document.querySelectorAll("table[data-name]")) {
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(table, head, place));
      head.replaceChildren(button);
    });
    const count = table.tBodies[0].rows.length;
    if (!count) continue;
    const tools = document.createElement("div");
    tools.className = "tools";
    const filter = document.createElement("input");
    filter.type = "search";
    filter.placeholder = "Filter rows";
    filter.setAttribute("aria-label", `Filter rows: ${table.caption.textContent}`);
    filter.addEventListener("input", () => {
      const wanted = filter.value.toLowerCase();
      for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
    const button = document.createElement("button");
    button.type = "button";
    const total = Number(table.dataset.total);
    button.textContent = total > count ? `Save the first ${count} of ${total} rows as CSV` : "Save as CSV";
    button.addEventListener("click", () => save(table));
    tools.append(...count >= 8 ? [filter, button] : [button]);
    table.parentElement.before(tools);
  }

  // the arrows of the table under the pointer stand out
  for (const box of document.querySelectorAll(".graph-of-tables a")) {
    const arrows = [...document.querySelectorAll(".arrow")]
      .filter((arrow) => [arrow.dataset.from, arrow.dataset.to].includes(box.dataset.name));
    const mark = (on) => arrows.forEach((arrow) => arrow.classList.toggle("on", on));
    for (const event of ["mouseenter", "focus"]) box.addEventListener(event, () => mark(true));
    for (const event of ["mouseleave", "blur"]) box.addEventListener(event, () => mark(false));
  }

  // a link to a description opens it
  const open = () => {
    let name = location.hash.slice(1);
    try { name = decodeURIComponent(name); } catch { return; }  // no address of this page
    const target = document.getElementById(name);
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  open();
})();
