package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// FuzzRequests sends any body to every verb that takes one. The daemon is asked only with what says the same when it is
// written down again, and every refusal is one line of JSON.
func FuzzRequests(f *testing.F) {
	for _, seed := range []string{
		`{"name":"laptop"}`, `{"uses":3,"ttl_seconds":60,"routes":["10.0.0.0/8","fd00::/48"],"stock":true}`,
		`{"node":"laptop","prefix":"10.1.0.0/16"}`, `null`, `[]`, `{`, `{"name":"a"} {}`, `{"NAME":"a"}`, "", "\x00",
		`{"prefix":"::ffff:10.0.0.0/104"}`, `{"prefix":"10.0.0.0/-1"}`, `{"uses":1e400}`, `{"name":"\ud800"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/v1/invites", "/v1/nodes/revoke", "/v1/routes/approve"} {
			var b book
			w := httptest.NewRecorder()
			routes(&b).ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
			if w.Code == http.StatusOK {
				checkAgain(t, b.noted())
				continue
			}
			var refusal errorBody
			if err := json.Unmarshal(w.Body.Bytes(), &refusal); err != nil || refusal.Error == "" {
				t.Fatalf("%s: status %d without a reason: %q", path, w.Code, w.Body)
			}
			if len(b.noted()) != 0 {
				t.Fatalf("%s: refused and carried out: %q", path, body)
			}
		}
	})
}

func checkAgain(t *testing.T, calls []any) {
	t.Helper()
	if len(calls) != 1 {
		t.Fatalf("one request became %d calls", len(calls))
	}
	content, err := json.Marshal(calls[0])
	if err != nil {
		t.Fatal(err)
	}
	again := reflect.New(reflect.TypeOf(calls[0]))
	if err := decode(strings.NewReader(string(content)), again.Interface()); err != nil {
		t.Fatalf("%s: %v", content, err)
	}
	// Compared as text: an empty list and none are the same to us.
	if twice, err := json.Marshal(again.Interface()); err != nil || string(twice) != string(content) {
		t.Fatalf("%s became %s, %v", content, twice, err)
	}
}

func TestDecodePassesReadErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for _, body := range []io.Reader{
		io.MultiReader(strings.NewReader(`{"na`), errorReader{broken}),
		io.MultiReader(strings.NewReader(`{"name":"a"}`), errorReader{broken}),
	} {
		if err := decode(body, &RevokeRequest{}); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }
