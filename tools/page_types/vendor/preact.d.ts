// What the page uses of Preact; for the check of its types alone.
export function h(...parts: any[]): any;
export function render(what: any, into: Element): void;
export const Fragment: any;
export class Component {
  props: any;
  state: any;
  setState(changed: object): void;
  render(): any;
}
