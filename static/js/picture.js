/* A film as a picture to keep: as it is looked at, with map and outlines, and what was said of it. */

import { levels } from "./pane.js";

const LEAST_WIDTH = 900; // a smaller film is enlarged to it
const MOST_SIDE = 2048;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

/** Draw the film of a pane with `map` over it, if there is one, and `lines` below; as a PNG. */
export async function drawPicture(pane, map, lines) {
  const film = await drawFilm(pane, map);
  const width = Math.max(LEAST_WIDTH, film.width);
  const text = Math.round(width / 50);
  const canvas = new OffscreenCanvas(width, 1);
  let pen = canvas.getContext("2d");
  pen.font = fontOf(text);
  const wrapped = lines.flatMap((line) => wrap(pen, line, width - 2 * text));
  canvas.height = film.height + Math.round((1.5 * wrapped.length + 1.5) * text);
  pen = canvas.getContext("2d");
  pen.fillStyle = colour("film");
  pen.fillRect(0, 0, width, canvas.height);
  pen.drawImage(film, (width - film.width) / 2, 0);
  pen.fillStyle = colour("film-ink");
  pen.font = fontOf(text);
  wrapped.forEach((line, row) => {
    pen.fillText(line, text, film.height + (1.5 * row + 1.75) * text);
  });
  return canvas.convertToBlob({ type: "image/png" });
}

/** The whole film, windowed and turned as in the pane. */
async function drawFilm({ image, look }, map) {
  const { naturalWidth, naturalHeight } = image;
  const longest = Math.max(naturalWidth, naturalHeight);
  const scale = Math.max(LEAST_WIDTH, Math.min(MOST_SIDE, longest)) / longest;
  const width = Math.round(naturalWidth * scale);
  const height = Math.round(naturalHeight * scale);
  const upright = new OffscreenCanvas(width, height);
  const pen = upright.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height);
  const shown = levels(look);
  for (let place = 0; place < pixels.data.length; place += 1) {
    if (place % 4 !== 3) {
      pixels.data[place] = shown[pixels.data[place]];
    }
  }
  pen.putImageData(pixels, 0, 0);
  if (map) {
    await drawMap(pen, map, width, height);
  }
  const isLying = look.rotate % 180 !== 0;
  const turned = new OffscreenCanvas(isLying ? height : width, isLying ? width : height);
  const turner = turned.getContext("2d");
  turner.translate(turned.width / 2, turned.height / 2);
  turner.rotate((look.rotate * Math.PI) / 180);
  turner.drawImage(upright, -width / 2, -height / 2);
  return turned;
}

async function drawMap(pen, { image, lungs, opacity }, width, height) {
  const overlay = new Image();
  overlay.src = `data:image/png;base64,${image}`;
  await overlay.decode();
  pen.globalAlpha = opacity;
  pen.drawImage(overlay, 0, 0, width, height);
  pen.globalAlpha = 1;
  pen.strokeStyle = colour("film-accent");
  pen.lineWidth = Math.max(1.5, width / 400);
  pen.setLineDash([4 * pen.lineWidth, 2 * pen.lineWidth]);
  for (const points of lungs) {
    pen.beginPath();
    points.forEach(([x, y]) => pen.lineTo(x * width, y * height));
    pen.closePath();
    pen.stroke();
  }
}

function fontOf(size) {
  return `${size}px ${getComputedStyle(document.body).fontFamily}`;
}

function wrap(pen, line, width) {
  const rows = [""];
  for (const word of line.split(/(?<=\s|.{60})/)) {
    const longer = rows.at(-1) + word;
    if (rows.at(-1) && pen.measureText(longer).width > width) {
      rows.push(word);
    } else {
      rows[rows.length - 1] = longer;
    }
  }
  return rows;
}
