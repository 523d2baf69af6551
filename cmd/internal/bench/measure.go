package bench

// A Measure is one row of the results.
type Measure struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	Unit string `json:"unit"` // of all its values
	Less bool   `json:"less_is_better"`

	shown string  // the unit that the table has instead
	scale float64 // what one of that is in Unit
}

// The keys of the measures.
const (
	KeyTCPUp      = "tcp_1_up"
	KeyTCPDown    = "tcp_1_down"
	KeyTCP8Up     = "tcp_8_up"
	KeyTCP8Down   = "tcp_8_down"
	KeySmall      = "small_packets"
	KeyIdleP50    = "rtt_idle_p50"
	KeyIdleP99    = "rtt_idle_p99"
	KeyIdleP999   = "rtt_idle_p999"
	KeyLoadedP50  = "rtt_loaded_p50"
	KeyLoadedP99  = "rtt_loaded_p99"
	KeyLoadedP999 = "rtt_loaded_p999"
	KeyCPU        = "cpu_per_gigabyte"
	KeyMemory     = "peak_memory"
)

// Measures returns what is measured, in the order of the table. The bare link has no daemon and so neither [KeyCPU] nor
// [KeyMemory].
func Measures() []Measure {
	tcp := func(key, name string) Measure {
		return Measure{Key: key, Name: name, Unit: "bit/s", shown: "Gbit/s", scale: 1e9}
	}
	rtt := func(key, name string) Measure {
		return Measure{Key: key, Name: name, Unit: "s", shown: "µs", scale: 1e-6, Less: true}
	}
	return []Measure{
		tcp(KeyTCPUp, "TCP, 1 stream up"),
		tcp(KeyTCPDown, "TCP, 1 stream down"),
		tcp(KeyTCP8Up, "TCP, 8 streams up"),
		tcp(KeyTCP8Down, "TCP, 8 streams down"),
		{Key: KeySmall, Name: "64 B UDP, clean", Unit: "packets/s", shown: "kpps", scale: 1e3},
		rtt(KeyIdleP50, "RTT idle, p50"),
		rtt(KeyIdleP99, "RTT idle, p99"),
		rtt(KeyIdleP999, "RTT idle, p99.9"),
		rtt(KeyLoadedP50, "RTT beside TCP, p50"),
		rtt(KeyLoadedP99, "RTT beside TCP, p99"),
		rtt(KeyLoadedP999, "RTT beside TCP, p99.9"),
		{Key: KeyCPU, Name: "CPU of both daemons", Unit: "s/GB", shown: "s/GB", scale: 1, Less: true},
		{Key: KeyMemory, Name: "memory, larger daemon", Unit: "B", shown: "MB", scale: 1e6, Less: true},
	}
}

// Sample is what one pass of one contender gave, by the keys of the measures and in their units.
type Sample map[string]float64
