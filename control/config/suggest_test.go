package config

import "testing"

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"name", "name", 0},
		{"nmae", "name", 1},
		{"mtuu", "mtu", 1},
		{"kitten", "sitting", 3},
		{"ca", "abc", 3},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"listen", "advertise", "network", "port_mapping"}
	for word, want := range map[string]string{
		"listen": "listen", "LISTEN": "listen", "lsiten": "listen", "port-mapping": "port_mapping",
		"advertize": "advertise", "x": "", "zzzzzz": "", "": "",
	} {
		if got, _ := nearest(word, words); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestElementPlaces(t *testing.T) {
	text := "a = [ 'x', # one ] two\n  \"\"\"y]\n,\"\"\" , [1, 2],{b = 3}\n , 5 ]\nb = [7]"
	got := elementPlaces(text, place{1, 5}, 5)
	want := []place{{1, 7}, {2, 3}, {3, 8}, {3, 15}, {4, 4}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("element %d at %v, want %v", i, got[i], want[i])
		}
	}
	if got := elementPlaces("x", place{9, 9}, 1); got != nil {
		t.Errorf("a place outside the text: %v", got)
	}
}
