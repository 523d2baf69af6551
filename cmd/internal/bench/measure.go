package bench

// A Measure is one line of the results.
type Measure struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	Unit string `json:"unit"` // of all its values
	Less bool   `json:"less_is_better"`

	shown string  // the unit that the table has instead
	scale float64 // what one of that is in Unit
}

// The keys of the measures. Those of TCP (KeyTCPUp to KeyTCP8Down, KeyCPU, KeyAllCPU) are as they are in the row "tcp"; in
// every other row of TCP the name of the row and an underscore come before.
const (
	KeyTCPUp    = "tcp_1_up"
	KeyTCPDown  = "tcp_1_down"
	KeyTCP8Up   = "tcp_8_up"
	KeyTCP8Down = "tcp_8_down"
	// KeyCPU is what the daemons take, KeyAllCPU what they, both ends of the traffic and the kernel's threads for the
	// network (ksoftirqd) take.
	KeyCPU        = "cpu_per_gigabyte"
	KeyAllCPU     = "cpu_all_per_gigabyte"
	KeyLarge      = "large_packets"
	KeySmall      = "small_packets"
	KeyPacketCPU  = "cpu_per_million_packets"
	KeyIdleP50    = "rtt_idle_p50"
	KeyIdleP99    = "rtt_idle_p99"
	KeyIdleP999   = "rtt_idle_p999"
	KeySparseP50  = "rtt_sparse_p50"
	KeySparseP99  = "rtt_sparse_p99"
	KeySparseP999 = "rtt_sparse_p999"
	KeyLoadedP50  = "rtt_loaded_p50"
	KeyLoadedP99  = "rtt_loaded_p99"
	KeyLoadedP999 = "rtt_loaded_p999"
	KeyMemory     = "peak_memory"
)

func perSecond(key, name string) Measure {
	return Measure{Key: key, Name: name, Unit: "packets/s", shown: "kpps", scale: 1e3}
}

func perGigabyte(key, name string) Measure {
	return Measure{Key: key, Name: name, Unit: "s/GB", shown: "s/GB", scale: 1, Less: true}
}

func roundTrips(name, keyP50, keyP99, keyP999 string) []Measure {
	quantile := func(key, q string) Measure {
		return Measure{Key: key, Name: name + ", " + q, Unit: "s", shown: "µs", scale: 1e-6, Less: true}
	}
	return []Measure{quantile(keyP50, "p50"), quantile(keyP99, "p99"), quantile(keyP999, "p99.9")}
}

// Measures returns what rows measure, in their order. The bare link has no daemon and so none of their CPU time and memory.
func Measures(rows []Row) []Measure {
	var all []Measure
	for _, r := range rows {
		all = append(all, r.measures...)
	}
	return all
}

// Sample is what one pass of one contender gave, by the keys of the measures and in their units.
type Sample map[string]float64
