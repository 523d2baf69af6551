// Package daemon wires the parts of aetherd together: it is the one place that knows them all. It turns a configuration into
// a running gateway or member, adapts the platform packages to what control asks of a host, and answers the local API.
//
// Order of start: lock the state, judge the input, undo what a crash has left, join (a member with an invite), open the
// NIC and the sockets, run. Nothing that can fail on bad input comes after the first change to the host, and each
// change is in the journal before it is made. Order of stop: sessions, sockets, NIC, undo.
package daemon
