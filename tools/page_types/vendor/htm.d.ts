// htm, bound to what draws; for the check of its types alone.
declare const htm: { bind(draw: (...parts: any[]) => any): (texts: TemplateStringsArray, ...values: any[]) => any };
export default htm;
