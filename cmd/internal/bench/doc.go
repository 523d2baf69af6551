// Package bench measures this build of aetherd against the bare link it runs on, and against another VPN program, in one
// run on one machine.
//
// Each contender gets two network namespaces of its own, joined by a cable (veth), so that none meets the routes or
// the firewall of another. They take turns, pass by pass, so that what else the machine does meets them all alike; the
// result is the median of the passes, with the smallest and the largest beside it.
//
// [Run] does the work and works on Linux alone, inside what package demo/stage prepares. The search for a rate, the
// summary and the table know no system and no clock.
package bench
