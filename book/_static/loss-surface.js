// Draws the surfaces of `hbanalysis.plots.surfaces`: each figure.loss-surface holds its data as JSON. plotly.js is
// loaded from this site, once, and only when a reader comes to a surface (or, on a small or touched screen, asks for
// it: there a surface would catch the finger that scrolls the page).
(() => {
  const library = new URL("plotly/plotly-gl3d.min.js", document.currentScript.src).href;
  const STEP = Math.PI / 18;
  const WAITING = "The contours above show the same numbers.";
  let loading;

  const load = () => {
    loading ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = library;
      script.onload = () => done(window.Plotly);
      script.onerror = failed;
      document.head.append(script);
    });
    return loading;
  };

  const colours = (view) => {
    const style = getComputedStyle(view);
    const text = style.color;
    const found = { "font.color": text };
    for (const axis of ["xaxis", "yaxis", "zaxis"]) {
      found[`scene.${axis}.gridcolor`] = style.getPropertyValue("--pst-color-border").trim() || "#ccc";
      found[`scene.${axis}.color`] = text;
    }
    return found;
  };

  const turned = (eye, key) => {
    const length = Math.hypot(eye.x, eye.y, eye.z);
    const way = Math.atan2(eye.y, eye.x) + STEP * ((key === "ArrowRight") - (key === "ArrowLeft"));
    const height = Math.asin(eye.z / length) + STEP * ((key === "ArrowUp") - (key === "ArrowDown"));
    const rise = Math.min(Math.max(height, -1.5), 1.5);
    const far = length * (key === "+" ? 1 / 1.15 : key === "-" ? 1.15 : 1);
    return {
      x: far * Math.cos(rise) * Math.cos(way),
      y: far * Math.cos(rise) * Math.sin(way),
      z: far * Math.sin(rise),
    };
  };

  const draw = async (figure) => {
    const view = figure.querySelector(".loss-surface-view");
    const caption = figure.querySelector("figcaption");
    const button = figure.querySelector("button");
    if (figure.dataset.state) return;
    figure.dataset.state = "loading";
    button.hidden = true;
    try {
      const plotly = await load();
      const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
      const start = layout.scene.camera.eye;
      await plotly.newPlot(view, data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
      await plotly.relayout(view, colours(view));
      new MutationObserver(() => plotly.relayout(view, colours(view))).observe(document.documentElement, {
        attributeFilter: ["data-theme"],
      });
      view.tabIndex = 0;
      view.addEventListener("keydown", (event) => {
        const known = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "+", "-", "Home"];
        if (!known.includes(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        event.stopPropagation();
        const eye = view.layout.scene.camera.eye;
        plotly.relayout(view, { "scene.camera.eye": event.key === "Home" ? start : turned(eye, event.key) });
      });
      caption.textContent = caption.dataset.keys;
      figure.dataset.state = "drawn";
    } catch {
      view.replaceChildren();
      figure.dataset.state = "failed";
    }
  };

  const drawable = () => document.createElement("canvas").getContext("webgl") !== null;

  const begin = () => {
    const figures = [...document.querySelectorAll("figure.loss-surface")];
    if (!figures.length || !drawable()) return;
    const roomy = matchMedia("(hover: hover) and (min-width: 600px)").matches;
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    });
    for (const figure of figures) {
      const button = figure.querySelector("button");
      button.hidden = false;
      figure.querySelector("figcaption").textContent = WAITING;
      button.addEventListener("click", () => draw(figure));
      if (roomy) seen.observe(figure);
    }
  };

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
