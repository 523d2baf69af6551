// Package control decides. A [Gateway] admits nodes, gives them addresses and routes between them; a [Member] dials a
// gateway and keeps the session alive. In each, one goroutine owns the desired state: commands,
// session events and network changes come in, snapshots for the dataplane and plans for the host go out.
//
// Nothing here touches the operating system: the host is behind [Host], packets behind [Dataplane]. The daemon
// connects both to the real ones.
//
//	config   store ◄── admit     masque     portmap
//	   ▲        ▲        ▲          ▲          ▲
//	   └────────┴────────┴─ control ┴──────────┘
package control
