// What every module draws with, from one place.
import htm from "../vendor/htm.js";
import { h } from "../vendor/preact.js";

/** Controls, marks that turn the direction of writing, separators of lines, lone surrogates: as `visible` has them. */
const UNSEEN = /(?![\n\t])[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]|\p{Surrogate}/gu;

/**
 * A text from anywhere, with escapes for what would change how the rest of the page reads.
 * @param {any} child
 */
export const visible = (child) => (typeof child === "string" ? child.replace(UNSEEN, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`) : child);

/** @param {any} type @param {any} props @param {any[]} children */
const drawn = (type, props, ...children) => h(type, props, ...children.map(visible));

export const html = htm.bind(drawn);
export { Component, Fragment, render } from "../vendor/preact.js";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact-hooks.js";
export { batch, computed, effect, signal } from "../vendor/signals-core.js";
export { useComputed, useSignal, useSignalEffect } from "../vendor/signals.js";
