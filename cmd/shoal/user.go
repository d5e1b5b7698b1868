package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shoalmq/shoal/broker/auth"
)

// userCommand manages a password file.
func userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Manage the users of a password file",
		Long: `Manage the users of a password file, the one of --password-file of shoal serve.

The file is Mosquitto's: a line user:hash for each. Those that mosquitto_passwd
made are read and kept, and with --hash pbkdf2 Mosquitto reads those made here.
A running node reads a changed file anew within seconds; clients that are
connected stay so.

A password is asked for, twice; with --stdin it is the first line of the
standard input.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage(errors.New("want add, passwd, remove, list or check"))
		},
	}
	var file string
	cmd.PersistentFlags().StringVarP(&file, "file", "f", "", "the password file")
	_ = cmd.MarkPersistentFlagRequired("file")
	cmd.AddCommand(
		setUserCommand("add", "Add a user; makes the file if there is none", &file, false),
		setUserCommand("passwd", "Change a user's password", &file, true),
		removeUserCommand(&file), listUsersCommand(&file), checkUserCommand(&file),
	)
	return cmd
}

func setUserCommand(name, short string, file *string, known bool) *cobra.Command {
	var stdin bool
	var kind string
	cmd := &cobra.Command{Use: name + " USER", Short: short, Args: cobra.ExactArgs(1)}
	cmd.Flags().BoolVar(&stdin, "stdin", false, "read the password from the standard input")
	cmd.Flags().StringVar(&kind, "hash", auth.HashNames()[0], "one of "+strings.Join(auth.HashNames(), ", ")+"; Mosquitto before 2.1 reads pbkdf2 only")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := auth.ReadUserFile(*file, !known)
		if err != nil {
			return err
		}
		if f.Has(args[0]) != known {
			if known {
				return fmt.Errorf("no user %q in %s; shoal user add makes one", args[0], *file)
			}
			return fmt.Errorf("user %q is in %s already; shoal user passwd changes the password", args[0], *file)
		}
		password, err := askPassword(cmd.InOrStdin(), cmd.ErrOrStderr(), stdin, true)
		if err != nil {
			return err
		}
		hash, err := auth.NewHash(kind, password)
		if err != nil {
			return usage(err)
		}
		if err := f.Set(args[0], hash); err != nil {
			return usage(err)
		}
		return f.Write()
	}
	return cmd
}

func removeUserCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use: "remove USER", Short: "Remove a user", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := auth.ReadUserFile(*file, false)
			if err != nil {
				return err
			}
			if !f.Remove(args[0]) {
				return fmt.Errorf("no user %q in %s", args[0], *file)
			}
			return f.Write()
		},
	}
}

func listUsersCommand(file *string) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the users", Args: cobra.NoArgs}
	form := outputFlag(cmd, "table")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := auth.ReadUserFile(*file, false)
		if err != nil {
			return err
		}
		users := f.Users()
		if form.json() {
			return writeJSON(cmd.OutOrStdout(), users)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "USER\tHASH")
		for _, u := range users {
			fmt.Fprintf(w, "%s\t%s\n", u.Name, u.Hash)
		}
		return w.Flush()
	}
	return cmd
}

func checkUserCommand(file *string) *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use: "check USER", Short: "Tell whether a password is the user's; fails if it is not", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := auth.ReadUserFile(*file, false)
			if err != nil {
				return err
			}
			password, err := askPassword(cmd.InOrStdin(), cmd.ErrOrStderr(), stdin, false)
			if err != nil {
				return err
			}
			if !f.Check(args[0], password) {
				return errors.New("unknown user, or not the password")
			}
			fmt.Fprintln(cmd.OutOrStdout(), "right")
			return nil
		},
	}
	cmd.Flags().BoolVar(&stdin, "stdin", false, "read the password from the standard input")
	return cmd
}

// askPassword reads a password: from a terminal without showing it, and twice if
// it is to be kept.
func askPassword(in io.Reader, prompt io.Writer, stdin, twice bool) ([]byte, error) {
	if stdin {
		line, err := bufio.NewReader(in).ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read password: %w", err)
		}
		return bytes.TrimRight(line, "\r\n"), nil
	}
	terminal, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return nil, usage(errors.New("there is no terminal to ask for the password at; give it with --stdin"))
	}
	ask := func(text string) ([]byte, error) {
		fmt.Fprint(prompt, text)
		defer fmt.Fprintln(prompt)
		return term.ReadPassword(int(terminal.Fd()))
	}
	password, err := ask("Password: ")
	if err != nil || !twice {
		return password, err
	}
	again, err := ask("Again: ")
	if err == nil && !bytes.Equal(password, again) {
		err = errors.New("the passwords differ")
	}
	return password, err
}
