// Draws figure.spectrum-explorer from the JSON inside it: eigenvalues by rank, a line for each batch size, on a
// logarithmic axis; the band is the range over seeds. Data set and scale, training or test loss, and the batch sizes
// shown are the reader's choice. Plain SVG, no library.
(() => {
  const NS = "http://www.w3.org/2000/svg";
  const [WIDEST, NARROWEST, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [640, 300, 400, 62, 12, 14, 48];
  const SETS = { train: "training loss", test: "test loss" };
  const SHAPES = [
    "M0-4A4 4 0 1 0 0 4A4 4 0 1 0 0-4Z",
    "M-3.5-3.5H3.5V3.5H-3.5Z",
    "M0-5L4.5 3.5H-4.5Z",
    "M0-5L5 0L0 5L-5 0Z",
    "M0 5L4.5-3.5H-4.5Z",
    "M-4-1.5H-1.5V-4H1.5V-1.5H4V1.5H1.5V4H-1.5V1.5H-4Z",
  ];
  let count = 0;

  const make = (parent, name, attributes = {}, text = "") => {
    const element = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    parent.append(element);
    return element;
  };

  const html = (parent, name, properties = {}) => {
    const element = Object.assign(document.createElement(name), properties);
    parent.append(element);
    return element;
  };

  const number = (value) => (value >= 1000 || value < 0.001 ? value.toExponential(1) : String(+value.toPrecision(3)));

  const explore = (figure) => {
    const families = JSON.parse(figure.querySelector("script").textContent);
    if (!families.length) return;
    const view = figure.querySelector(".spectrum-explorer-view");
    const id = `spectrum-explorer-${(count += 1)}`;
    view.replaceChildren();
    const controls = html(view, "div", { className: "spectrum-explorer-controls" });
    const label = (text, target) => html(controls, "label", { textContent: text, htmlFor: target });
    label("Network, data and scale", `${id}-family`);
    const family = html(controls, "select", { id: `${id}-family` });
    families.forEach((one, place) =>
      html(family, "option", { value: place, textContent: `${one.title} (scale ${one.scale})` }),
    );
    label("Hessian of the", `${id}-set`);
    const set = html(controls, "select", { id: `${id}-set` });
    for (const [name, title] of Object.entries(SETS)) html(set, "option", { value: name, textContent: title });
    const keys = html(view, "div", { className: "spectrum-explorer-keys" });
    keys.setAttribute("role", "group");
    keys.setAttribute("aria-label", "Batch sizes shown");
    const drawing = html(view, "div", { className: "spectrum-explorer-drawing" });
    const said = html(view, "p", { className: "spectrum-explorer-said" });
    said.setAttribute("aria-live", "polite");
    const hidden = new Set();

    const draw = () => {
      // As wide as its place, so that type keeps its size on a phone.
      const width = Math.min(WIDEST, Math.max(NARROWEST, drawing.clientWidth || WIDEST));
      const one = families[family.value];
      const lines = one[set.value].map((line, place) => ({ ...line, shape: SHAPES[place % SHAPES.length] }));
      const shown = lines.filter((line) => !hidden.has(line.batch_size));
      drawing.replaceChildren();
      const svg = make(drawing, "svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
      const every = lines.flatMap((line) => [...line.least, ...line.most]);
      const low = Math.floor(Math.log10(Math.min(...every)));
      const high = Math.ceil(Math.log10(Math.max(...every)));
      const ranks = Math.max(...lines.map((line) => line.values.length));
      const x = (rank) => LEFT + ((rank - 0.5) / ranks) * (width - LEFT - RIGHT);
      const y = (value) => TOP + ((high - Math.log10(value)) / (high - low)) * (HEIGHT - TOP - BOTTOM);
      for (let power = low; power <= high; power += 1) {
        const place = y(10 ** power);
        make(svg, "line", { x1: LEFT, x2: width - RIGHT, y1: place, y2: place, class: "grid" });
        const text = make(svg, "text", { x: LEFT - 8, y: place + 5, "text-anchor": "end" }, "10");
        make(text, "tspan", { dy: -6, "font-size": 11 }, String(power).replace("-", "\u2212"));
      }
      for (let rank = 1; rank <= ranks; rank += ranks > 8 ? 3 : 1) {
        make(svg, "text", { x: x(rank), y: HEIGHT - BOTTOM + 20, "text-anchor": "middle" }, String(rank));
      }
      make(svg, "text", { x: (LEFT + width) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "rank of the eigenvalue");
      make(svg, "text", { transform: `translate(14 ${HEIGHT / 2 - 14}) rotate(-90)`, "text-anchor": "middle" }, "eigenvalue");
      for (const line of shown) {
        const along = (values) => values.map((value, rank) => `${x(rank + 1)} ${y(value)}`);
        if (line.seeds > 1) {
          const band = [...along(line.most), ...along(line.least).reverse()].join("L");
          make(svg, "path", { d: `M${band}Z`, fill: line.colour, opacity: 0.18 });
        }
        make(svg, "path", { d: `M${along(line.values).join("L")}`, fill: "none", stroke: line.colour, "stroke-width": 2 });
        line.values.forEach((value, rank) => {
          const mark = make(svg, "path", {
            d: line.shape,
            fill: line.colour,
            transform: `translate(${x(rank + 1)} ${y(value)})`,
          });
          make(mark, "title", {}, `B = ${line.batch_size}, rank ${rank + 1}: ${number(value)}`);
        });
      }
      const first = shown.map((line) => `${number(line.values[0])} at B = ${line.batch_size}`).join(", ");
      const text = first ? `Largest eigenvalue: ${first}.` : "No batch size is shown.";
      make(svg, "title", {}, `Spectra of the ${SETS[set.value]}, ${one.title}, scale ${one.scale}. ${text}`);
      said.textContent = text;
    };

    const fill = () => {
      keys.replaceChildren();
      families[family.value][set.value].forEach((line, place) => {
        const seeds = line.seeds > 1 ? ` (${line.seeds} seeds)` : "";
        const key = html(keys, "button", { type: "button", textContent: `B = ${line.batch_size}${seeds}` });
        const mark = make(key, "svg", { viewBox: "-6 -6 12 12", width: 12, height: 12, "aria-hidden": "true" });
        make(mark, "path", { d: SHAPES[place % SHAPES.length], fill: line.colour });
        key.setAttribute("aria-pressed", String(!hidden.has(line.batch_size)));
        key.addEventListener("click", () => {
          if (!hidden.delete(line.batch_size)) hidden.add(line.batch_size);
          key.setAttribute("aria-pressed", String(!hidden.has(line.batch_size)));
          draw();
        });
      });
      draw();
    };
    family.addEventListener("change", () => {
      hidden.clear();
      fill();
    });
    set.addEventListener("change", fill);
    fill();
    let last = drawing.clientWidth;
    new ResizeObserver(() => {
      if (drawing.clientWidth === last) return;
      last = drawing.clientWidth;
      draw();
    }).observe(drawing);
  };
  document.querySelectorAll("figure.spectrum-explorer").forEach(explore);
})();
