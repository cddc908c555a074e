// Command sigwarden monitors and audits Rekor, Sigstore's transparency log.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // names of time zones, in images that hold the program alone

	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // authorities for HTTPS, where the system has none
)

func main() {
	if err := harden(); err != nil {
		fmt.Fprintln(os.Stderr, "sigwarden: warning: "+err.Error())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks to stop, a second one does not ask.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit statuses. When several apply, the highest is returned.
const (
	exitOK        = 0
	exitFailed    = 1 // could not finish
	exitUsage     = 2 // wrong usage or an invalid configuration
	exitFindings  = 3 // new findings that notify
	exitIntegrity = 4 // an integrity incident, or evidence that does not hold
)

// status is an error that ends the program with an exit status. A nil err
// prints nothing.
type status struct {
	code int
	err  error
}

func (s *status) Error() string {
	if s.err == nil {
		return fmt.Sprintf("exit status %d", s.code)
	}
	return s.err.Error()
}

func (s *status) Unwrap() error { return s.err }

func usage(err error) error { return &status{exitUsage, err} }

// run is the whole program below the operating system.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &sticky{Writer: stdout}
	a := &app{getenv: getenv, stdin: stdin, stdout: out, stderr: stderr}
	root := a.command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if failure := out.failure(); err == nil && failure != nil {
		err = &status{exitFailed, fmt.Errorf("what was to be printed could not be written: %w", failure)}
	}
	if err == nil {
		return exitOK
	}
	var s *status
	if !errors.As(err, &s) {
		// Whatever cobra finds wrong by itself is wrong usage.
		s = &status{exitUsage, err}
	}
	if s.err != nil {
		fmt.Fprintln(stderr, "sigwarden: "+safeLines(s.err.Error()))
	}
	return s.code
}

// command builds the tree of commands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "sigwarden",
		Short: "Monitor and auditor of Rekor, Sigstore's signature transparency log",
		Long: `sigwarden follows Rekor logs, proves every entry against what the log signed,
finds the signing events of your identities, tells expected from unexpected
ones, and notifies. It notices when a log contradicts itself, and keeps evidence
that others can check.

Exit status: 0 done, nothing to report; 1 could not finish; 2 wrong usage or an
invalid configuration; 3 new findings that notify; 4 an integrity incident, or
evidence that does not hold. When several apply, the highest is returned.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVarP(&a.configPath, "config", "c", "", "configuration file (default sigwarden.yaml, then /etc/sigwarden/sigwarden.yaml)")
	root.PersistentFlags().StringVar(&a.server, "server", "", "ask a running sigwarden at this address in place of the state file: status, coverage, findings, incidents, audit list, evidence export, expect")
	root.PersistentFlags().StringVar(&a.tokenFile, "token-file", "", "with --server: file with the token (default: environment variable "+tokenVariable+")")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log more to standard error")
	root.AddCommand(a.runCommand(), a.demoCommand(), a.checkCommand(), a.statusCommand(), a.findingsCommand(), a.incidentsCommand(), a.expectCommand(), a.auditCommand(), a.tokenCommand(),
		a.logsCommand(), a.scanCommand(), a.inspectCommand(), a.evidenceCommand(), a.ledgerCommand(), a.coverageCommand(), a.reportCommand(), a.notifyCommand(), a.witnessCommand(), a.initCommand(), a.configCommand(), a.doctorCommand(), a.backupCommand(), a.restoreCommand(), a.versionCommand())
	root.InitDefaultCompletionCmd()
	root.SetHelpCommand(helpCommand(root))
	wrap(root)
	return root
}

// helpCommand is cobra's, save that a command which does not exist is an error.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "help [COMMAND]", Short: "Help about a command", RunE: func(_ *cobra.Command, args []string) error {
		c, rest, err := root.Find(args)
		if err != nil || len(rest) > 0 {
			return usage(fmt.Errorf("unknown command %q; see sigwarden --help", strings.Join(args, " ")))
		}
		return c.Help()
	}}
}

// wrap gives errors of commands exit status 1, unless they bring their own, and
// lets a group without its subcommand be an error.
func wrap(c *cobra.Command) {
	if f := c.RunE; f != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			err := f(c, args)
			var s *status
			if err == nil || errors.As(err, &s) {
				return err
			}
			return &status{exitFailed, err}
		}
	}
	if c.HasSubCommands() && c.RunE == nil && c.Run == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("unknown command %q for %q; see %s --help", args[0], c.CommandPath(), c.CommandPath()))
			}
			return usage(fmt.Errorf("%s needs a command; see %s --help", c.CommandPath(), c.CommandPath()))
		}
	}
	for _, s := range c.Commands() {
		wrap(s)
	}
}
