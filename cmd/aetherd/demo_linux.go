package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo"
	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
)

// runDemo runs the demonstration, by way of this same program in namespaces of its own.
func runDemo(ctx context.Context, out, errOut io.Writer, o demoOptions) error {
	if !stage.Inside() {
		return onStage(ctx, "demo", out, errOut)
	}
	if err := stage.Prepare("demo"); err != nil {
		return err
	}
	view := demo.View{W: out, Color: wantsColor(out)}
	if o.asJSON {
		view = demo.View{W: io.Discard}
	}
	view.Title("AetherTunnel, shown on one machine")
	result, err := demo.Run(ctx, demo.Options{Duration: o.duration, View: view})
	view.End(result)
	if o.asJSON {
		err = errors.Join(printJSON(out, result), err)
	}
	return err
}

// onStage runs the same command line on a stage of its own and passes its exit code on.
func onStage(ctx context.Context, verb string, out, errOut io.Writer) error {
	err := stage.Enter(ctx, verb, out, errOut)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return &exitError{code: exit.ExitCode()}
	}
	return err
}

// wantsColor reports whether text for w may have colours: on a terminal, unless the user has said that they want none
// (no-color.org).
func wantsColor(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
