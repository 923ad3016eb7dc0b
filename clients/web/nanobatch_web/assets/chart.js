// Bars as SVG. Lengths begin at zero, neighbours have an edge between them, and the figures stand in a table besides:
// nobody has to tell colours apart.
const SVG = "http://www.w3.org/2000/svg";
const NARROWEST = 260, HEIGHT = 240, LEFT = 64, BOTTOM = 28, TOP = 12, RIGHT = 8;
const LABEL = 72;

function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The smallest of 1, 2, 5 times a power of ten that makes four steps or fewer; at least `least`.
export function step(most, least) {
  let power = least;
  for (;;) {
    for (const factor of [1, 2, 5]) if (factor * power * 4 >= most) return factor * power;
    power *= 10;
  }
}

// Columns stacked of series: `columns` are names, `series` [{name, values}] with a value for each column. `show` makes
// words of a value, `least` is the smallest step of the axis, `label` what is said instead of the picture. `width` is the
// room there is, in pixels: letters then have their own size on a phone as well.
export function columns({columns: names, series, show, least, label, width}) {
  const sums = names.map((_, column) => series.reduce((sum, one) => sum + one.values[column], 0));
  const each = step(Math.max(...sums, 0), least);
  const top = each * Math.max(1, Math.ceil(Math.max(...sums, 0) / each));
  const high = HEIGHT - TOP - BOTTOM, right = Math.max(NARROWEST, width) - RIGHT;
  const wide = (right - LEFT) / names.length;
  const y = (value) => TOP + high * (1 - value / top);
  const chart = shape("svg", {viewBox: `0 0 ${right + RIGHT} ${HEIGHT}`, role: "img", "aria-label": label, class: "nb-chart"});
  for (let value = 0; value <= top; value += each) {
    chart.append(
      shape("line", {x1: LEFT, x2: right, y1: y(value), y2: y(value), class: "nb-grid"}),
      shape("text", {x: LEFT - 8, y: y(value) + 4, "text-anchor": "end"}, show(value)));
  }
  const every = Math.ceil(LABEL / wide);
  names.forEach((name, column) => {
    let below = 0;
    const x = LEFT + wide * column;
    series.forEach((one, index) => {
      const value = one.values[column];
      if (!value) return;
      chart.append(shape("rect", {
        x: x + wide * .1, width: wide * .8, y: y(below + value), height: y(below) - y(below + value),
        class: `nb-bar nb-color-${index}`,
      }, shape("title", {}, `${name}, ${one.name}: ${show(value)}`)));
      below += value;
    });
    if (column % every === 0) chart.append(shape("text", {x: x + wide / 2, y: HEIGHT - 8, "text-anchor": "middle"}, name.slice(5)));
  });
  return chart;
}

// One bar of a table's row, from zero to `most`.
export function bar(value, most, color) {
  const length = most ? Math.max(value ? .5 : 0, value / most * 100) : 0;
  return shape("svg", {viewBox: "0 0 100 8", preserveAspectRatio: "none", class: "nb-inline-bar", "aria-hidden": "true"},
    shape("rect", {x: 0, y: 0, height: 8, width: length, class: `nb-bar nb-color-${color}`}));
}
