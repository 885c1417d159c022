// What the page uses of signals in components; for the check of its types alone.
import type { Signal } from "./signals-core";
export function useSignal<T>(first: T): Signal<T>;
export function useComputed<T>(of: () => T): Signal<T>;
export function useSignalEffect(act: () => unknown): void;
