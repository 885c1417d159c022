// What the page uses of signals; for the check of its types alone.
export interface Signal<T = any> {
  value: T;
  peek(): T;
}
export function signal<T>(first: T): Signal<T>;
export function computed<T>(of: () => T): Signal<T>;
export function effect(act: () => unknown): () => void;
export function batch(act: () => unknown): void;
