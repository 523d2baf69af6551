package bench

import (
	"fmt"
	"slices"
	"strings"
)

// A Row is what is chosen by a name: the measures that are taken together.
type Row struct {
	Name  string
	Doc   string // one line
	Usual bool   // measured unless the user chooses others

	place    place
	prefix   string // of the keys of its measures
	loads    []load // of TCP, in order
	measures []Measure
}

// place is the network on which a row is measured.
type place int

const (
	// cable is client and server, joined by a cable (veth).
	cable place = iota
	// lan has a third machine behind the server, which forwards: what runs on the server makes it reachable.
	lan
	// hub has a third machine that is a second member of the tunnel's network.
	hub
	// wan is client and server, joined by an emulated link.
	wan
)

// places lists them in the order in which they are measured.
func places() []place { return []place{cable, lan, hub, wan} }

// load is a way to send TCP.
type load struct {
	key, name string // of the measure
	streams   int
	down      bool
}

const manyStreams = 8

func allLoads() []load {
	return []load{
		{KeyTCPUp, "1 stream up", 1, false},
		{KeyTCPDown, "1 stream down", 1, true},
		{KeyTCP8Up, "8 streams up", manyStreams, false},
		{KeyTCP8Down, "8 streams down", manyStreams, true},
	}
}

// The names of the rows.
const (
	rowTCP    = "tcp"
	rowNIC    = "nic"
	rowNoGSO  = "nogso"
	rowLAN    = "lan"
	rowHub    = "hub"
	rowLarge  = "udp1400"
	rowSmall  = "udp64"
	rowCost   = "cpu64"
	rowIdle   = "idle"
	rowSparse = "sparse"
	rowLoaded = "loaded"
	rowWAN    = "wan"
	rowMemory = "memory"
)

// Rows returns everything that can be measured, in the order of the table.
func Rows() []Row {
	all := allLoads()
	rows := []Row{
		tcpRow(rowTCP, "TCP, 1 and 8 streams each way, and the CPU time it takes", cable, all),
		tcpRow(rowNIC, "the same, packets cut in software and joined by the receiver's GRO, as with a plain NIC", cable, all),
		tcpRow(rowNoGSO, "the same, packets cut in software and not joined", cable, all),
		tcpRow(rowLAN, "TCP to a host in a LAN behind the gateway, which forwards", lan, all[:2]),
		tcpRow(rowHub, "TCP from one member to another, through the gateway", hub, all[:2]),
		{
			Name: rowLarge, Doc: "the highest clean rate of UDP in packets of 1400 bytes",
			measures: []Measure{perSecond(KeyLarge, "1400 B UDP, clean")},
		},
		{
			Name: rowSmall, Doc: "the highest clean rate of UDP with 64 bytes in each packet", Usual: true,
			measures: []Measure{perSecond(KeySmall, "64 B UDP, clean")},
		},
		{
			Name: rowCost, Doc: "CPU seconds per million 64-byte packets at 40,000 per second", Usual: true,
			measures: []Measure{{
				Key: KeyPacketCPU, Name: "CPU, 64 B at 40 kpps", Unit: "s/million", shown: "s/M", scale: 1, Less: true,
			}},
		},
		{
			Name: rowIdle, Doc: "round trips of one request after the other, nothing else being sent", Usual: true,
			measures: roundTrips("RTT idle", KeyIdleP50, KeyIdleP99, KeyIdleP999),
		},
		{
			Name: rowSparse, Doc: "round trips of 1000 requests per second, between which the processors may sleep", Usual: true,
			measures: roundTrips("RTT at 1000/s", KeySparseP50, KeySparseP99, KeySparseP999),
		},
		{
			Name: rowLoaded, Doc: "the same beside one TCP stream that takes all it gets", Usual: true,
			measures: roundTrips("RTT beside TCP", KeyLoadedP50, KeyLoadedP99, KeyLoadedP999),
		},
		tcpRow(rowWAN, "TCP up, 1 and 8 streams, at 50 ms round trip and 0.1 % loss each way", wan, []load{all[0], all[2]}),
		{
			Name: rowMemory, Doc: "peak memory of the larger daemon, after all rows on the same cable", Usual: true,
			measures: []Measure{{
				Key: KeyMemory, Name: "memory, larger daemon", Unit: "B", shown: "MB", scale: 1e6, Less: true,
			}},
		},
	}
	return rows
}

// tcpRow is a row of TCP throughput and, but where the link is the limit, of the CPU time it takes.
func tcpRow(name, doc string, at place, loads []load) Row {
	r := Row{Name: name, Doc: doc, place: at, loads: loads}
	label := "TCP, "
	if name == rowTCP {
		r.Usual = true
	} else {
		r.prefix, label = name+"_", name+": "
	}
	for _, l := range loads {
		m := Measure{Key: r.prefix + l.key, Name: label + l.name, Unit: "bit/s", shown: "Gbit/s", scale: 1e9}
		if at == wan {
			m.shown, m.scale = "Mbit/s", 1e6
		}
		r.measures = append(r.measures, m)
	}
	if at != wan {
		r.measures = append(r.measures, perGigabyte(r.prefix+KeyCPU, label+"CPU of daemons"),
			perGigabyte(r.prefix+KeyAllCPU, label+"CPU of all"))
	}
	return r
}

// ParseRows reads the names of rows, separated by commas; "all" is every row. The empty text is the usual rows. They
// come in the order of the table, each once.
func ParseRows(text string) ([]Row, error) {
	all := Rows()
	if text == "" {
		return slices.DeleteFunc(all, func(r Row) bool { return !r.Usual }), nil
	}
	chosen := make(map[string]bool)
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if name == "all" {
			return all, nil
		}
		if !slices.ContainsFunc(all, func(r Row) bool { return r.Name == name }) {
			return nil, fmt.Errorf("--only %s: there is no row %q; there are %s, and all of them with \"all\"", text, name,
				strings.Join(names(all), ", "))
		}
		chosen[name] = true
	}
	return slices.DeleteFunc(all, func(r Row) bool { return !chosen[r.Name] }), nil
}

func names(rows []Row) []string {
	list := make([]string, len(rows))
	for i, r := range rows {
		list[i] = r.Name
	}
	return list
}

// RowsHelp lists the rows for a person, one to a line; those measured by default have a star.
func RowsHelp() string {
	var b strings.Builder
	for _, r := range Rows() {
		star := " "
		if r.Usual {
			star = "*"
		}
		fmt.Fprintf(&b, "  %s %-8s %s\n", star, r.Name, r.Doc)
	}
	return b.String()
}
