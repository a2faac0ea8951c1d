#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""scripts/vm, inside the environment: boots QEMU through virtme-run, and finds out
from the console how the guest fares."""

import argparse
import contextlib
import glob
import os
import re
import select
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
ENV = os.environ.get("ADDRESS_SPACE_ENV", "")

HANG, CRASH = 124, 125

# The module for each kernel, and how many times slower that kernel may be.
OTHER = os.environ.get("ADDRESS_SPACE_KERNEL")
MODULE = {"stock": f"build/{OTHER}/address_space.ko" if OTHER else "address_space.ko", "debug": "build/debug/address_space.ko", "kcsan": "build/kcsan/address_space.ko"}
SLOWER = {"stock": 1, "debug": 3, "kcsan": 3}


def read_complaints():
    """The list of what the kernel may complain of, as pairs of a word and its text."""
    with open(f"{HERE}/complaints") as file:
        return [line.rstrip("\n").split("\t", 1) for line in file if line.strip() and not line.startswith("#")]


class Complaints:
    def __init__(self):
        entries = read_complaints()

        def regex(*kinds):
            return re.compile("|".join(f"(?:{text})" for kind, text in entries if kind in kinds).encode())

        self.report, self.fatal, self.exception = regex("report", "fatal"), regex("fatal"), regex("except")

    def reported(self, line):
        """Whether a kernel that says this cannot be trusted any more."""
        return bool(self.report.search(line) and not self.exception.search(line))

    def ended(self, line):
        """Whether nothing more will come of the command after this."""
        return bool(self.fatal.search(line) and not self.exception.search(line))


COMPLAINTS = Complaints()
# The last line of a report by KASAN or KCSAN.
BAR = b"=" * 66
# A VM says each second that it is alive. It is late after so many seconds.
LATE = 5
# What the emulator prints on the same console.
NOISE = re.compile(rb"TCG doesn't support requested feature|`file` is not installed|virtme-ng may fail to detect kernel version")

parser = argparse.ArgumentParser(
    prog="scripts/vm",
    usage="scripts/vm [options] [-- COMMAND...]",
    description="Boot a kernel in QEMU, load the address_space.ko that was built for it, if "
    "there is one, and run COMMAND as root from the checkout's top; with no COMMAND, a shell.",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog="""\
In the VM: the environment is the root, as an overlay that ends with the VM;
the checkout is at its own path and writable; /mnt/ext4 is a fresh ext4 disk
(/dev/vda); /tmp and /dev/shm are tmpfs; /dev/kvm, FUSE, cgroup2, debugfs and
hugetlbfs are there. The whole console goes to build/vm.log.

Exit status: COMMAND's own, or
  2    bad usage, or a kernel that does not exist
  124  the VM hangs: no sign of life, no output for too long, or -t ran out
  125  the kernel panicked, oopsed or reported a bug (BUG, WARNING, KASAN,
       lockdep, ...) after the module was loaded; the report is printed
       (if it shows that the emulator has run code that was patched away, the VM
       is booted and COMMAND run once more)
  126  address_space.ko does not load
""",
)
parser.add_argument("-k", dest="kernel", choices=list(MODULE), default="stock", help="which kernel (default: stock)")
parser.add_argument("-c", dest="cpus", type=int, default=2, help="CPUs (default: 2)")
parser.add_argument("-m", dest="memory", default="2G", help="memory (default: 2G)")
parser.add_argument("-t", dest="limit", type=float, metavar="SECONDS", help="time for all of it (default: 1800; debug, kcsan: 5400)")
parser.add_argument("-s", dest="silence", type=float, metavar="SECONDS", help="time without output (default: 300; debug, kcsan: 900)")
parser.add_argument("-a", dest="append", action="append", default=[], metavar="WORD", help="for the kernel's command line, as page_poison=1; may be repeated")
parser.add_argument("--kvm", action="store_true", help="try the host's KVM; by default the VM is emulated, so that it is the same on every host")
parser.add_argument("--icount", action="store_true", help="one CPU, whose time stamp counter counts its instructions")
parser.add_argument("--profile", metavar="FILE", help="count the instructions of the command between marks (scripts/lib/profile/count.c, as build/count.so)")
parser.add_argument("--kernel-folder", help=argparse.SUPPRESS)  # scripts/debug-kernel's
parser.add_argument("command", nargs="*", metavar="COMMAND", help=argparse.SUPPRESS)


def children(pid):
    """The processes below one."""
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path) as file:
                for child in file.read().split():
                    found += [int(child), *children(int(child))]
        except OSError:
            continue
    return found


def say(text):
    print(f"scripts/vm: {text}", file=sys.stderr, flush=True)


def say_if_old(module):
    """Nothing builds the module for a kernel but who asks for it: one from before may be there."""
    path = os.path.join(TOP, module)
    if not os.path.exists(path):
        return
    built = os.path.getmtime(path)
    for folder in ("src", "uapi/include"):
        for parent, _, names in os.walk(os.path.join(TOP, folder)):
            for name in names:
                source = os.path.join(parent, name)
                if name.endswith((".rs", ".c", ".h")) and not name.endswith("_generated.rs") and os.path.getmtime(source) > built:
                    return say(f"{module} is older than {os.path.relpath(source, TOP)}")


def show(title, lines):
    say(title)
    sys.stderr.buffer.write(b"\n".join(lines) + b"\n")
    sys.stderr.flush()


def make_disk(path):
    with open(path, "wb") as disk:
        disk.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)


def command_script(args):
    keep = {k: os.environ[k] for k in ("CI", "TERM", "LANG", "CARGO_HOME", "CARGO_NET_OFFLINE", "ADDRESS_SPACE_ENV") if k in os.environ}
    keep.update(ADDRESS_SPACE_MODULE=MODULE[args.kernel], HOME="/root", USER="root", LOGNAME="root", SHELL="/bin/bash",
                PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    words = ["env", "-i", *(f"{k}={v}" for k, v in keep.items()), *(args.command or ["bash", "-l"])]
    return f"cd {shlex.quote(TOP)}\nexec {shlex.join(words)}\n"


def image(args):
    if args.kernel != "stock":
        # All drivers are built in; only init= needs the initramfs, see below.
        return ["--kimg", f"{args.kernel_folder}/build/vmlinux", "--mods=none", "--force-initramfs"]
    return ["--kimg", f"/usr/lib/modules/{release()}/vmlinuz", "--mods=auto"]


def release():
    """That of the stock kernel."""
    with open(f"{ENV}/release") as file:
        return file.read().strip()


# What the VM sees of this machine, by the tags that vm-init mounts.
SHARES = {"as.root": "/", "as.top": TOP}


def has_9p(args):
    """Whether the kernel has 9p: those for clouds have not, but virtiofs. Under emulation a
    request to virtiofsd takes much longer."""
    return args.kernel != "stock" or bool(glob.glob(f"/usr/lib/modules/{release()}/kernel/fs/9p/*"))


@contextlib.contextmanager
def servers(args, run):
    """A virtiofsd for each share, if the kernel wants one."""
    started = []
    try:
        for tag, path in SHARES.items() if not has_9p(args) else ():
            started.append(subprocess.Popen(
                ["/usr/libexec/virtiofsd", "--socket-path", f"{run}/{tag}", "--shared-dir", path,
                 "--sandbox", "none", "--no-announce-submounts", "--log-level", "error"],
                stdin=subprocess.DEVNULL, start_new_session=True))
        yield
    finally:
        for server in started:
            server.kill()
            server.wait()


def virtme(args, run):
    words = [
        "virtme-run", *image(args),
        "--root", "/", "--rw", "--memory", args.memory, "--cpus", str(args.cpus),
        "--disable-microvm", *(["--force-9p"] if has_9p(args) else []), "--blk-disk", f"ext4={run}/disk",
    ]
    options = ["-no-reboot", "-monitor", f"unix:{run}/monitor,server=on,wait=off"]
    # Why it ended, where the kernel could not say so: a triple fault is logged with the registers.
    options += ["-d", "cpu_reset", "-D", f"{run}/emulator"]
    if args.icount:
        # The emulator counts, and runs one thread for that.
        options += ["-icount", "shift=0"]
    if args.profile:
        options += ["-plugin", f"{TOP}/build/count.so,out={os.path.abspath(args.profile)}"]
    if not args.kvm:
        words.append("--disable-kvm")
        options += ["-cpu", "EPYC-Milan,+svm,+npt", "-accel", "tcg"]
    if args.command:
        words += ["--script-sh", "true", "--show-boot-console"]
    # vm-init mounts these two, each with the caching that it needs.
    for tag, path in SHARES.items():
        if has_9p(args):
            options += ["-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap",
                        "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
        else:
            options += ["-chardev", f"socket,id={tag},path={run}/{tag}",
                        "-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    for name in ("control", "stdout", "stderr"):
        options += ["-device", "virtio-serial-pci", "-chardev", f"file,id=as.{name},path={run}/{name}",
                    "-device", f"virtserialport,name=as.{name},chardev=as.{name}"]
    for option in (
        # The kernel uses the first init=; virtme's own comes last.
        f"init={HERE}/vm-init", f"as_dir={run}", f"as_top={TOP}", f"as_module={MODULE[args.kernel]}",
        "ignore_loglevel", "sysrq_always_enabled", "unknown_nmi_panic", "panic=-1", "oops=panic", "softlockup_panic=1", "watchdog_thresh=30",
        *args.append,
    ):
        words += ["--kopt", option]
    return words + ["--qemu-opts", *options]


class Guest:
    """One boot."""

    def __init__(self, args, log):
        self.args = args
        self.log = log
        self.run = tempfile.mkdtemp(prefix="vm.")
        self.state = "boot"          # boot, loading, ready
        self.status = None
        self.lines = []              # of the console, since the module was loaded
        self.hung = []               # what the kernel said about blocked tasks
        self.partial = b""
        self.control = b""
        os.mkdir(f"{self.run}/old")
        make_disk(f"{self.run}/disk")
        with open(f"{self.run}/command", "w") as file:
            file.write(command_script(args))

    def console(self, data):
        self.log.write(data)
        self.log.flush()
        *lines, self.partial = (self.partial + data).split(b"\n")
        for line in lines:
            if self.state != "boot" and not NOISE.search(line):
                self.lines.append(line.rstrip(b"\r"))

    def controls(self, data):
        *words, self.control = (self.control + data).split(b"\n")
        for word in words:
            if word in (b"loading", b"ready"):
                self.state = word.decode()
            elif word.startswith(b"exit "):
                self.status = int(word[5:])

    def report(self):
        """The first complaint of the kernel since the module was loaded."""
        lines = self.lines[:len(self.lines) - len(self.hung)]
        for i, line in enumerate(lines):
            if COMPLAINTS.reported(line):
                for end in range(i, min(i + 120, len(lines))):
                    if b"end trace" in lines[end] or b"end Kernel panic" in lines[end] or lines[end].endswith(BAR):
                        break
                return lines[max(0, i - 2):end + 1]
        return None

    def last_words(self, process):
        """How the emulator ended."""
        try:
            with open(f"{self.run}/emulator", errors="replace") as file:
                _, fault, registers = file.read().rpartition("Triple fault\n")
        except OSError:
            fault = ""
        if fault:
            return "a triple fault\n" + registers[:4000]
        return f"the emulator ended with {process.returncode}"

    def emulator_crashed(self):
        """An int3 outside of the module, where memory has none any more: the kernel had
        put it there while it patched its own code, and the other CPU, although notified
        since, ran an old translation."""
        report = b"\n".join(self.report() or [])
        where = re.search(rb"RIP: 0010:(.*)", report)
        code = re.search(rb"Code: ([0-9a-f ]+) <", report)
        return bool(b"Oops: int3" in report and where and b"[address_space]" not in where[1]
                    and code and code[1].split()[-1] != b"cc")

    def ask_for_blocked_tasks(self, readers):
        """Has the kernel print the blocked tasks and the stacks of the CPUs, by keys or,
        if there is no answer, by an NMI."""
        mark = len(self.lines)
        for orders in (("sendkey alt-sysrq-w", "sendkey alt-sysrq-l"), ("nmi",)):
            try:
                with self.monitor(3) as monitor:
                    for order in orders:
                        monitor.sendall(order.encode() + b"\n")
                        time.sleep(0.5)
            except OSError:
                return []
            end = time.monotonic() + 5
            while (left := end - time.monotonic()) > 0:
                if select.select([readers["console"]], [], [], left)[0]:
                    data = os.read(readers["console"], 65536)
                    if not data:
                        break
                    self.console(data)
            if len(self.lines) > mark:
                break
        return self.lines[mark:]

    def monitor(self, timeout):
        """A connection to the emulator's monitor. One that hangs accepts none: OSError."""
        monitor = socket.socket(socket.AF_UNIX)
        monitor.settimeout(timeout)
        try:
            monitor.connect(f"{self.run}/monitor")
        except OSError:
            monitor.close()
            raise
        return monitor

    def press_a_key(self):
        """Has the emulator look for interrupts. QEMU before 10.2 loses one, as that of the timer,
        if it comes while VMRUN notes another in the same word, without the lock: then the CPU
        stays in its guest until the next comes, which with one CPU is never."""
        try:
            with self.monitor(1) as monitor:
                monitor.sendall(b"sendkey shift\n")
                time.sleep(0.1)
        except OSError:
            pass

    def where_cpus_are(self, process):
        """The registers of the CPUs, twice, or that the emulator does not answer either; and
        what its threads do."""
        answer = b""
        try:
            with self.monitor(3) as monitor:
                monitor.sendall(b"info registers -a\n")
                time.sleep(0.5)
                monitor.sendall(b"info registers -a\n")
                while data := monitor.recv(65536):
                    answer += data
        except OSError:
            # It waits for more orders than these.
            pass
        threads = []
        for pid in [process.pid, *children(process.pid)]:
            for task in glob.glob(f"/proc/{pid}/task/*"):
                try:
                    with open(f"{task}/stat") as stat, open(f"{task}/wchan") as wchan:
                        name, _, fields = stat.read().partition("(")[2].rpartition(") ")
                        fields = fields.split()
                        threads.append(f"{name}: {fields[0]}, {fields[11]} ticks, {wchan.read()}")
                except OSError:
                    continue
        registers = answer.decode(errors="replace") if b"RIP=" in answer else "the emulator does not answer"
        return ("\n".join([registers, "threads of the emulator:", *threads]) + "\n").encode()

    def boot(self):
        """Returns (exit status, reason or None)."""
        readers = {}
        for name in ("control", "stdout", "stderr"):
            os.mkfifo(f"{self.run}/{name}")
            readers[name] = os.open(f"{self.run}/{name}", os.O_RDWR)  # never at its end
        process = subprocess.Popen(virtme(self.args, self.run), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        readers["console"] = process.stdout.fileno()
        try:
            status, why = self.watch(process, readers)
            if status == HANG and why is not None and self.state != "boot":
                # First, since a VM that hangs may end by the keys or the NMI.
                where = self.where_cpus_are(process)
                self.hung = self.ask_for_blocked_tasks(readers)
                if not self.hung:
                    self.log.write(where)
                    say("no answer to keys nor to an NMI: where the CPUs were before is in the log")
            return status, why
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            for name in ("control", "stdout", "stderr"):
                os.close(readers[name])
            shutil.rmtree(self.run)

    def watch(self, process, readers):
        selector = selectors.DefaultSelector()
        for name, fd in readers.items():
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ, name)
        start = heard = alive = pressed = time.monotonic()
        fatal = None
        while True:
            ended = process.poll() is not None
            events = selector.select(0 if ended else 1)
            for key, _ in events:
                try:
                    data = os.read(key.fd, 65536)
                except BlockingIOError:
                    continue
                if not data:
                    selector.unregister(key.fd)
                    continue
                now = time.monotonic()
                if key.data == "control":
                    alive = now
                    self.controls(data)
                    continue
                heard = now
                if key.data == "console":
                    alive = now
                    self.console(data)
                else:
                    stream = sys.stdout if key.data == "stdout" else sys.stderr
                    stream.buffer.write(data)
                    stream.flush()
            now = time.monotonic()
            if ended and not events:
                if self.status is not None:
                    return self.status, None
                return CRASH, f"the VM stopped before the command ended: {self.last_words(process)}"
            if fatal is None and self.state != "boot" and any(COMPLAINTS.ended(line) for line in self.lines[-200:]):
                fatal = now
            if fatal is not None and now - fatal > 5:
                return CRASH, "the kernel crashed"
            if self.status is not None and now - alive > 20:
                return self.status, None
            # With -icount a second of the VM's is a billion instructions.
            slower = SLOWER[self.args.kernel] * (10 if self.args.icount else 1)
            if now - alive > (60 if self.state != "boot" else 120) * slower:
                return HANG, "the VM hangs: no sign of life"
            if self.state != "boot" and not self.args.icount and now - max(alive, pressed) > LATE:
                pressed = now
                self.log.write(f"scripts/vm: no sign of life for {now - alive:.0f} s: a key is pressed\n".encode())
                self.press_a_key()
            if now - heard > self.args.silence:
                return HANG, f"no output for {self.args.silence:.0f} s"
            if now - start > self.args.limit:
                return HANG, f"not done after {self.args.limit:.0f} s"


def shell(args, log):
    if not os.isatty(0):
        say("a shell needs a terminal; give a command after --")
        return 2
    guest = Guest(args, log)
    for name in ("control", "stdout", "stderr"):
        open(f"{guest.run}/{name}", "w").close()
    say("booting; Ctrl-D ends the shell and the VM, Ctrl-A x stops it at once")
    try:
        with servers(args, guest.run):
            subprocess.call(virtme(args, guest.run), stderr=log)
        with open(f"{guest.run}/stderr", "rb") as file:
            sys.stderr.buffer.write(file.read())
    finally:
        shutil.rmtree(guest.run)
    return 0


def open_log():
    """Two VMs may run from one checkout: each has a log, and vm.log is the latest."""
    os.makedirs(f"{TOP}/build", exist_ok=True)
    old = sorted((e for e in os.scandir(f"{TOP}/build") if re.fullmatch(r"vm-\d+\.log", e.name)), key=lambda e: e.stat().st_mtime)
    for entry in old[:-8]:
        os.unlink(entry.path)
    name = f"vm-{os.getpid()}.log"
    link = f"{TOP}/build/.vm.log.{os.getpid()}"
    os.symlink(name, link)
    os.rename(link, f"{TOP}/build/vm.log")
    return open(f"{TOP}/build/{name}", "wb")


def main():
    argv = sys.argv[1:]
    args = parser.parse_args(argv)
    if args.icount:
        if args.kvm:
            parser.error("--icount is the emulator's: not with --kvm")
        args.cpus = 1
    args.limit = args.limit or 1800 * SLOWER[args.kernel]
    args.silence = args.silence or 300 * SLOWER[args.kernel]
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(1))
    say_if_old(MODULE[args.kernel])
    with open_log() as log:
        if not args.command:
            return shell(args, log)
        for attempt in (1, 2):
            guest = Guest(args, log)
            with servers(args, guest.run):
                status, why = guest.boot()
            if attempt == 2 or why is None:
                break
            if guest.state == "boot":
                say(f"{why}, before the module was loaded: a fault of the emulator; booting once more")
            elif guest.emulator_crashed():
                show("the kernel reports:", guest.report())
                say("an int3 that the kernel had removed: a fault of the emulator; booting once more")
            else:
                break
    report = guest.report()
    if report is not None:
        show("the kernel reports:", report)
        status = CRASH if status != HANG else HANG
    if guest.hung:
        show("the blocked tasks, as the kernel reports them:", guest.hung[:200])
    if why is not None:
        say(why)
    if report is not None or why is not None:
        say(f"the whole console is in {TOP}/build/{os.path.basename(log.name)}")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # the reader of the output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
