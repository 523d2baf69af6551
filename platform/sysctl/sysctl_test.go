package sysctl

import (
	"errors"
	"testing"
)

func TestSettingValidate(t *testing.T) {
	tests := []struct {
		name string
		s    Setting
		ok   bool
	}{
		{"plain", Setting{Key: SrcValidMark, Value: "1"}, true},
		{"interface with a dot", Setting{Key: InterfaceKey("ipv4", "eth0.100", "forwarding"), Value: "1"}, true},
		{"kernel", Setting{Key: "kernel/core_pattern", Value: "|/bin/sh"}, false},
		{"leaves the tree", Setting{Key: "net/../kernel/core_pattern", Value: "1"}, false},
		{"absolute", Setting{Key: "/net/ipv4/ip_forward", Value: "1"}, false},
		{"dots", Setting{Key: "net.ipv4.ip_forward", Value: "1"}, false},
		{"spread leaves the tree", Setting{Key: SrcValidMark, Value: "1", Spreads: []string{"vm/x"}}, false},
		{"empty value", Setting{Key: SrcValidMark}, false},
		{"second line", Setting{Key: SrcValidMark, Value: "1\n"}, false},
	}
	for _, test := range tests {
		err := test.s.Validate()
		if (err == nil) != test.ok || (err != nil && !errors.Is(err, ErrKey)) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
