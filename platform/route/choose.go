package route

import (
	"crypto/sha256"
	"encoding/binary"
)

const (
	chooseTries = 256

	firstTable    = 100_000
	tableCount    = 900_000
	firstPriority = 1_000
	priorityCount = 4_000
)

// candidate derives the n-th choice of selectors for a state directory.
//
// Tables are above those that people number by hand. Priorities are before those of other VPNs that take
// whole address ranges (5210 and up), so that their exit routes do not take our inner packets. Marks keep the
// bits free that others test alone: 0x4000 and 0x8000 (kube-proxy), 0x0f00 (cilium), 0x00ff0000 (tailscale).
func candidate(stateDir string, n int) Selectors {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte("aethertunnel selectors\x00"+stateDir+"\x00"), uint32(n)))
	word := func(i int) uint32 { return binary.BigEndian.Uint32(sum[4*i:]) }
	return Selectors{
		Table:    firstTable + word(0)%tableCount,
		Mark:     0x40000000 | word(1)&0x3f0030ff,
		Priority: firstPriority + word(2)%priorityCount,
	}
}

// usage is which selectors are taken in a namespace.
type usage struct {
	tables     map[uint32]bool
	priorities map[uint32]bool
	marks      []markUse
}

type markUse struct{ mark, mask uint32 }

func (u usage) free(s Selectors) bool {
	if u.tables[s.Table] || u.priorities[s.Priority] {
		return false
	}
	for _, m := range u.marks {
		if s.Mark&m.mask == m.mark {
			return false
		}
	}
	return true
}

// choose returns the remembered selectors if they are free, or else the first free candidate.
func choose(stateDir string, remembered Selectors, taken usage) (Selectors, error) {
	if validSelectors(remembered) && taken.free(remembered) {
		return remembered, nil
	}
	for n := range chooseTries {
		if s := candidate(stateDir, n); taken.free(s) {
			return s, nil
		}
	}
	return Selectors{}, ErrNoSelectors
}

func validSelectors(s Selectors) bool {
	return s.Table >= 256 && s.Table <= 1<<31-1 && s.Mark != 0 && s.Priority > 0 && s.Priority < mainRule
}
