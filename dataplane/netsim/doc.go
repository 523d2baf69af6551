// Package netsim is a network in virtual time: hosts with UDP sockets, the links that connect them with all that can go
// wrong on a link, and NATs of the usual kinds. Everything that is left to chance comes from one seed, so that what has
// happened once happens again. It is for tests alone.
//
// Nothing here starts a goroutine, reads a clock or is safe for concurrent use. Time stands still until [Network.Step] or
// [Network.Run] moves it to the next event; whoever has goroutines of their own beside it, such as an engine in a
// testing/synctest bubble, moves it with [Network.Advance] and makes all calls from one goroutine.
//
// The tests of this package let whole lanes run over it: see run_test.go for the schedules, what they check, and how to
// run one again from its seed.
package netsim
