// What the page uses of Preact's hooks; for the check of its types alone.
export function useState<T>(first: T | (() => T)): [T, (next: T | ((before: T) => T)) => void];
export function useEffect(act: () => unknown, of?: unknown[]): void;
export function useLayoutEffect(act: () => unknown, of?: unknown[]): void;
export function useMemo<T>(make: () => T, of: unknown[]): T;
export function useCallback<T>(made: T, of: unknown[]): T;
export function useRef<T>(first: T): { current: T };
