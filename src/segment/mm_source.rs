// SPDX-License-Identifier: GPL-2.0

//! Where an mm comes from that no task uses.
//!
//! Where the kernel exports `mm_alloc()` it is called; Kbuild finds that out. Elsewhere the mm is
//! borrowed from exec, the one exported way on which the kernel builds an empty one: the module's
//! binary format stands first in the list, a usermode helper is started, and when exec asks the
//! formats about that very task, the format takes `bprm->mm` and has the exec fail. Every other
//! exec is answered with `ENOEXEC` at once.
//!
//! Nothing outside this file knows which it was. Either way the mm is charged to a memory cgroup of
//! the caller's choice, its own: spaces are cheap to make, and a caller that makes a hundred
//! thousand pays for them. A few are made at a time; who comes then waits for a mutex that is
//! acquired with nothing held but that of the list of arenas, and inside which nothing of the
//! module is.

use core::ptr::NonNull;

use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::aref::ARef, //
};

use crate::sys::task::MemCgroup;

/// Where an mm comes from on this kernel, for the log.
pub(crate) const NAME: &str = if cfg!(EXPORTED_MM_ALLOC) {
    "mm_alloc()"
} else {
    "exec of a usermode helper"
};

/// The ability to make an mm, for as long as the module is loaded.
pub(crate) struct MmSource {
    #[cfg(not(EXPORTED_MM_ALLOC))]
    _format: exec::Format,
}

impl MmSource {
    /// Prepares it. To be called once, when the module is loaded.
    pub(crate) fn prepare() -> Result<MmSource> {
        Ok(MmSource {
            #[cfg(not(EXPORTED_MM_ALLOC))]
            _format: exec::Format::register()?,
        })
    }
}

/// Makes an mm with one user, which `payer` pays for. What is mapped in it is left over from exec.
///
/// `ENOMEM`; `EBUSY` while the system is going to sleep; `ENODEV` where no usermode helper can be
/// started.
pub(crate) fn new_mm(payer: MemCgroup) -> Result<ARef<MmWithUser>> {
    #[cfg(EXPORTED_MM_ALLOC)]
    // SAFETY: May be called from any process context.
    let mm = payer.charge(|| unsafe { crate::sys::bindings::mm_alloc() });
    #[cfg(not(EXPORTED_MM_ALLOC))]
    let mm = exec::borrow_mm(payer)?;

    let mm = NonNull::new(mm).ok_or(ENOMEM)?;
    // SAFETY: A new mm has one user, which passes on.
    Ok(unsafe { ARef::from_raw(mm.cast()) })
}

#[cfg(not(EXPORTED_MM_ALLOC))]
mod exec {
    use core::{
        cell::UnsafeCell,
        ptr::null_mut, //
    };

    use kernel::{
        bindings::{
            mm_struct,
            task_struct, //
        },
        prelude::*,
        sync::{
            aref::ARef,
            atomic::{
                ordering::*,
                Atomic, //
            },
            global_lock,
            GlobalGuard,
            SetOnce, //
        },
        task::Task,
        time::{
            delay::fsleep,
            Delta, //
        },
    };

    use crate::sys::{
        bindings,
        module::THIS_MODULE,
        task::MemCgroup, //
    };

    /// What exec gets for an answer when its mm has been taken. Not `ENOEXEC`, which would have
    /// it ask the next format.
    const TAKEN: c_int = -(bindings::ECANCELED as c_int);

    /// Any program will do, it is never run; this one exists wherever there is
    /// user space, whatever the root file system looks like.
    const PATH: &CStr = c"/proc/1/exe";

    /// So many mms are made at a time. Every exec on the machine looks at all of them.
    const AT_ONCE: usize = 4;

    /// An exec that gives its mm.
    ///
    /// # Invariants
    ///
    /// Between two uses `task` and `mm` are null. In use it belongs to whoever has its [`Turn`];
    /// only the helper that was started for that writes to the two meanwhile.
    struct Birth {
        /// Whether somebody has it; not used of the last one, which has [`LAST`].
        taken: Atomic<i32>,
        /// The task whose exec it is, or null.
        task: Atomic<*mut task_struct>,
        /// What it gave.
        mm: Atomic<*mut mm_struct>,
    }

    static BIRTHS: [Birth; AT_ONCE] = [const {
        Birth {
            taken: Atomic::new(0),
            task: Atomic::new(null_mut()),
            mm: Atomic::new(null_mut()),
        }
    }; AT_ONCE];

    /// A birth that nobody else has.
    enum Turn {
        Taken(&'static Birth),
        Waited { _last: GlobalGuard<LAST> },
    }

    impl Turn {
        /// Takes one, or waits for the last one.
        fn take() -> Turn {
            let free = |birth: &&Birth| birth.taken.cmpxchg(0, 1, Acquire).is_ok();
            match BIRTHS[..AT_ONCE - 1].iter().find(free) {
                Some(birth) => Turn::Taken(birth),
                None => Turn::Waited { _last: LAST.lock() },
            }
        }

        fn birth(&self) -> &'static Birth {
            match self {
                Turn::Taken(birth) => birth,
                Turn::Waited { .. } => &BIRTHS[AT_ONCE - 1],
            }
        }
    }

    impl Drop for Turn {
        fn drop(&mut self) {
            if let Turn::Taken(birth) = self {
                birth.taken.store(0, Release);
            }
        }
    }

    /// What a helper is started for; stays until the helper's exec has been tried.
    struct Request {
        birth: &'static Birth,
        /// The memory cgroup that pays. The helper may charge it until it has exited.
        payer: MemCgroup,
        /// The helper, once it runs.
        helper: SetOnce<ARef<Task>>,
    }

    global_lock! {
        // SAFETY: Initialised in `Format::register`, before anything can use it.
        unsafe(uninit) static LAST: Mutex<()> = ();
    }

    /// A `struct linux_binfmt` in static memory, which only C looks into.
    struct Binfmt(UnsafeCell<bindings::linux_binfmt>);

    // SAFETY: Linked and unlinked by the exec code under its own lock.
    unsafe impl Sync for Binfmt {}

    static BINFMT: Binfmt = Binfmt(UnsafeCell::new(bindings::linux_binfmt {
        module: THIS_MODULE,
        load_binary: Some(load_binary),
        ..pin_init::zeroed()
    }));

    /// The module's binary format in the list.
    ///
    /// # Invariants
    ///
    /// [`BINFMT`] is registered while this lives.
    pub(super) struct Format(());

    impl Format {
        pub(super) fn register() -> Result<Format> {
            // For as long as the module is loaded, not only while an mm is made: exec walks on from
            // a format that it called without the list's lock, so a format must not go while any
            // exec may be inside it. The module's reference count sees to that.
            //
            // SAFETY: Called once, when the module is loaded: the lock is initialised once, and the
            // format is static and not registered yet. At the head, or another format might know
            // /proc/1/exe first.
            unsafe {
                LAST.init();
                bindings::__register_binfmt(BINFMT.0.get(), 1);
            }
            // INVARIANT: Just registered.
            Ok(Format(()))
        }
    }

    impl Drop for Format {
        fn drop(&mut self) {
            // SAFETY: Registered by the type's invariant.
            unsafe { bindings::unregister_binfmt(BINFMT.0.get()) };
        }
    }

    /// Asked of every exec.
    ///
    /// # Safety
    ///
    /// Called by exec with a valid `bprm` of the current task.
    unsafe extern "C" fn load_binary(bprm: *mut bindings::linux_binprm) -> c_int {
        let current = Task::current_raw();
        let Some(birth) = BIRTHS
            .iter()
            .find(|birth| birth.task.load(Relaxed) == current)
        else {
            return -(bindings::ENOEXEC as c_int);
        };
        // SAFETY: A format may change `bprm` while it is asked. Without an mm it is what it was
        // before exec made one, which freeing it allows for.
        unsafe {
            birth.mm.store((*bprm).mm, Release);
            (*bprm).mm = null_mut();
            // What the helper still allocates is its own.
            bindings::address_space_helper_set_active_memcg(null_mut());
        }
        birth.task.store(null_mut(), Relaxed);
        TAKEN
    }

    /// Run by the helper's task right before it execs.
    ///
    /// # Safety
    ///
    /// Called by the usermode helper code, with a [`Request`] as data.
    unsafe extern "C" fn note_task(
        info: *mut bindings::subprocess_info,
        _new: *mut bindings::cred,
    ) -> c_int {
        let current = current!();
        // SAFETY: The request stays until the exec that follows has been tried. To charge another
        // cgroup lasts until the mm is taken, or for the rest of the task's life, which
        // `borrow_mm` waits for; the request holds the cgroup as long.
        unsafe {
            let request: &Request = &*(*info).data.cast();
            request.helper.populate((&**current).into());
            bindings::address_space_helper_set_active_memcg(request.payer.as_raw());
            request.birth.task.store(Task::current_raw(), Relaxed);
        }
        0
    }

    /// Waits until a helper whose exec failed early can charge nothing any more.
    fn wait_for_end(helper: &Task) {
        // SAFETY: The task is held; the field is read as the kernel itself reads it
        // without locks.
        while unsafe { (&raw const (*helper.as_ptr()).exit_state).read_volatile() } == 0 {
            fsleep(Delta::from_millis(1));
        }
    }

    pub(super) fn borrow_mm(payer: MemCgroup) -> Result<*mut mm_struct> {
        let turn = Turn::take();
        let birth = turn.birth();
        let request = Request {
            birth,
            payer,
            helper: SetOnce::new(),
        };
        let mut argv = [PATH.as_char_ptr().cast_mut(), null_mut()];
        let mut envp = [null_mut()];
        // Not killable: a caller that stopped waiting would leave the helper running with pointers
        // into this frame.
        //
        // SAFETY: All strings, arrays and the request outlive the second call, which waits until
        // exec has been tried, and consumes what the first has made.
        let ret = unsafe {
            let info = bindings::call_usermodehelper_setup(
                PATH.as_char_ptr(),
                argv.as_mut_ptr(),
                envp.as_mut_ptr(),
                bindings::GFP_KERNEL,
                Some(note_task),
                None,
                (&raw const request).cast_mut().cast(),
            );
            if info.is_null() {
                return Err(ENOMEM);
            }
            bindings::call_usermodehelper_exec(info, bindings::UMH_WAIT_EXEC as c_int)
        };
        birth.task.store(null_mut(), Relaxed);
        let mm = birth.mm.xchg(null_mut(), Acquire);
        if !mm.is_null() {
            return Ok(mm);
        }
        if let Some(helper) = request.helper.as_ref() {
            wait_for_end(helper);
        }
        Err(match ret {
            // No helper may run: the system is going to sleep.
            ret if ret == EBUSY.to_errno() => EBUSY,
            ret if ret == ENOMEM.to_errno() => ENOMEM,
            // Refused before any format was asked (a security policy), or no helper path is
            // configured.
            ret => {
                kernel::pr_warn_once!(
                    "no address space can be made: a usermode helper fails with {ret}\n"
                );
                ENODEV
            }
        })
    }
}
