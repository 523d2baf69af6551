package aead

import (
	"runtime"
	"slices"

	"golang.org/x/sys/cpu"
)

// Policy says which suites may be used. The zero Policy allows all of them.
type Policy struct {
	// Allowed lists suites, in any order; empty means all. What is not a suite is ignored.
	Allowed []Suite
}

// Preferred returns the suites that policy allows, best first for this machine: AES-256-GCM, AES-128-GCM and last
// ChaCha20-Poly1305 where the processor has instructions for AES and carry-less multiplication, ChaCha20-Poly1305 first
// where it has not. AES in software is slow, and on many processors its time depends on the key.
func Preferred(policy Policy) []Suite { return preferred(policy, HasAES()) }

func preferred(policy Policy, hasAES bool) []Suite {
	order := []Suite{AES256GCM, AES128GCM, ChaCha20Poly1305}
	if !hasAES {
		order = []Suite{ChaCha20Poly1305, AES256GCM, AES128GCM}
	}
	if len(policy.Allowed) == 0 {
		return order
	}
	return slices.DeleteFunc(order, func(s Suite) bool { return !slices.Contains(policy.Allowed, s) })
}

// Choose picks the suite that two ends use, given what each prefers, best first; both ends compute the same. A list that
// starts with ChaCha20-Poly1305 comes from a machine without AES instructions and decides; otherwise the answering
// end's order does. It returns false where the lists share no suite.
func Choose(offered, answering []Suite) (Suite, bool) {
	first, second := answering, offered
	if startsWithChaCha(offered) && !startsWithChaCha(answering) {
		first, second = offered, answering
	}
	for _, s := range first {
		if s.Valid() && slices.Contains(second, s) {
			return s, true
		}
	}
	return 0, false
}

func startsWithChaCha(list []Suite) bool { return len(list) > 0 && list[0] == ChaCha20Poly1305 }

// HasAES reports whether the processor computes AES-GCM with instructions made for it.
func HasAES() bool {
	switch runtime.GOARCH {
	case "amd64":
		return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSE41 && cpu.X86.HasSSSE3
	case "arm64":
		return cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
	case "s390x":
		return cpu.S390X.HasAES && cpu.S390X.HasAESCTR && cpu.S390X.HasGHASH
	case "ppc64", "ppc64le":
		return true // every POWER8, the oldest that Go runs on, has them
	}
	return false
}
