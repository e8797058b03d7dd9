/* What goes with everything that leaves this page. */

export const DISCLAIMER = "Research tool, not a medical device. Not a diagnosis.";
