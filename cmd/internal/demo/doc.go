// Package demo shows on one machine what aetherd is for: a laptop, a gateway and a host on the LAN behind it, as three
// network namespaces, with two real aetherd processes over real TUN devices between them. It says what it does step by
// step, measures what gets through, and leaves nothing behind.
//
// [Run] does the work and works on Linux alone, inside what package stage prepares. The results and how they are shown
// know no system.
package demo
