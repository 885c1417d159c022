// What the page uses of uPlot; for the check of its types alone.
declare const uPlot: any;
export default uPlot;
