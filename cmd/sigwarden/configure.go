package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sigwarden/sigwarden/monitor/config"
	"github.com/sigwarden/sigwarden/watchlist"
	"github.com/sigwarden/sigwarden/watchlist/entry"
)

// configCommand is about configurations as files.
func (a *app) configCommand() *cobra.Command {
	imports := &cobra.Command{
		Use: "import FILE", Short: "Convert the configuration of a rekor-monitor", Args: cobra.ExactArgs(1),
		Long: `Prints the watchlist that looks for what a configuration of rekor-monitor looks
for. Warnings say which of its regular expressions are wider than they look: it
fits them to any part of a value. "-" is standard input.`,
		RunE: func(c *cobra.Command, args []string) error {
			data, err := a.readInput(c.Context(), args[0])
			if err != nil {
				return err
			}
			text, warnings, err := config.Import(data, extensionNamed, watchlist.CheckPattern)
			if err != nil {
				return usage(fmt.Errorf("%s: %w", args[0], err))
			}
			for _, w := range warnings {
				fmt.Fprintln(a.stderr, "warning: "+safe(w))
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}
	format := "json"
	schema := &cobra.Command{
		Use: "schema", Short: "JSON Schema of the configuration, for editors and pipelines", Args: cobra.NoArgs,
		Long: `Prints the JSON Schema of the configuration, which editors complete and check keys
with: # yaml-language-server: $schema=FILE. With --format markdown it prints the same for
people, as in docs/configuration.md. A schema cannot say everything: ` + "`sigwarden check`" + ` does.`,
		RunE: func(*cobra.Command, []string) error {
			switch format {
			case "json":
				return printJSON(a.stdout, config.Describe())
			case "markdown":
				_, err := io.WriteString(a.stdout, config.Describe().Markdown())
				return err
			}
			return usage(fmt.Errorf("%q is no format of a schema%s: want json or markdown", format, config.DidYouMean(format, []string{"json", "markdown"})))
		},
	}
	schema.Flags().StringVar(&format, "format", format, "json or markdown")
	group := &cobra.Command{Use: "config", Short: "Configurations as files"}
	group.AddCommand(imports, schema, a.reloadCommand())
	return group
}

// extensionNamed finds the name that an extension has in rules, for one that
// other programs write like BuildSignerURI.
func extensionNamed(text string) (string, bool) {
	if name, ok := entry.ExtensionName(text); ok {
		return name, true
	}
	for _, name := range entry.ExtensionNames() {
		if strings.EqualFold(strings.ReplaceAll(name, "-", ""), strings.ReplaceAll(text, "-", "")) {
			return name, true
		}
	}
	return "", false
}
