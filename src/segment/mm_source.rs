// SPDX-License-Identifier: GPL-2.0

//! Where an mm comes from that no task uses.
//!
//! Where the kernel exports `mm_alloc()` it is called; Kbuild finds that out.
//! Elsewhere the mm is borrowed from exec, the one exported road on which the
//! kernel builds an empty one: our binary format stands first in the list, a
//! usermode helper is started, and when exec asks the formats about that very
//! task, ours takes `bprm->mm` and lets the exec fail. Every other exec is
//! answered with `ENOEXEC` at once.
//!
//! Nothing outside this file knows which it was. Either way the mm is charged to
//! the memory cgroup of who asks: spaces are cheap to make, and whoever makes a
//! hundred thousand of them pays for them. One birth at a time, under a mutex that
//! nests inside nothing.

use core::ptr::NonNull;

use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::aref::ARef, //
};

/// The ability to make an mm, had for as long as the module is loaded.
pub(crate) struct MmSource {
    #[cfg(not(EXPORTED_MM_ALLOC))]
    _format: exec::Format,
}

impl MmSource {
    /// Gets ready. To be called once, when the module is loaded.
    pub(crate) fn prepare() -> Result<MmSource> {
        Ok(MmSource {
            #[cfg(not(EXPORTED_MM_ALLOC))]
            _format: exec::Format::register()?,
        })
    }
}

/// Makes an mm with one user and with nothing mapped that matters; what is mapped
/// is left over from exec.
pub(crate) fn new_mm() -> Result<ARef<MmWithUser>> {
    #[cfg(EXPORTED_MM_ALLOC)]
    // SAFETY: May be called from any process context.
    let mm = unsafe { crate::sys::bindings::mm_alloc() };
    #[cfg(not(EXPORTED_MM_ALLOC))]
    let mm = exec::borrow_mm()?;

    let mm = NonNull::new(mm).ok_or(ENOMEM)?;
    // SAFETY: A new mm has one user, which is ours now.
    Ok(unsafe { ARef::from_raw(mm.cast()) })
}

#[cfg(not(EXPORTED_MM_ALLOC))]
mod exec {
    use core::{
        cell::UnsafeCell,
        ptr::{
            null_mut,
            NonNull, //
        },
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
            global_lock, //
        },
        task::Task,
        time::{
            delay::fsleep,
            Delta, //
        },
    };

    use crate::{
        sys::bindings,
        LocalModule, //
    };

    /// What exec is told when we have taken its mm. Not `ENOEXEC`, which would
    /// have it ask the next format.
    const TAKEN: c_int = -(bindings::ECANCELED as c_int);

    /// Any program will do, it is never run; this one exists wherever there is
    /// user space, whatever the root file system looks like.
    const PATH: &CStr = c"/proc/1/exe";

    /// The task whose exec gives its mm, or null.
    static TASK: Atomic<*mut task_struct> = Atomic::new(null_mut());
    /// What it gave.
    static MM: Atomic<*mut mm_struct> = Atomic::new(null_mut());
    /// The memory cgroup that pays; a reference is held for as long as any helper
    /// may charge it.
    static PAYER: Atomic<*mut bindings::mem_cgroup> = Atomic::new(null_mut());
    /// A helper that was started, with a reference to it.
    static HELPER: Atomic<*mut task_struct> = Atomic::new(null_mut());

    global_lock! {
        // SAFETY: Initialised in `Format::register`, before anything can use it.
        unsafe(uninit) static BIRTH: Mutex<()> = ();
    }

    /// A `struct linux_binfmt` in static memory, which only C looks into.
    struct Binfmt(UnsafeCell<bindings::linux_binfmt>);

    // SAFETY: Linked and unlinked by the exec code under its own lock.
    unsafe impl Sync for Binfmt {}

    static BINFMT: Binfmt = Binfmt(UnsafeCell::new(bindings::linux_binfmt {
        module: kernel::module::this_module::<LocalModule>().as_ptr(),
        load_binary: Some(load_binary),
        ..pin_init::zeroed()
    }));

    /// Our binary format in the list.
    ///
    /// # Invariants
    ///
    /// [`BINFMT`] is registered while this lives.
    pub(super) struct Format(());

    impl Format {
        pub(super) fn register() -> Result<Format> {
            // SAFETY: Called once, when the module is loaded.
            unsafe { BIRTH.init() };
            // For as long as the module is loaded, not only for a birth: exec
            // walks on from a format that it called without the list's lock, so a
            // format must not go while any exec may be inside it. The module's
            // reference count sees to that.
            //
            // SAFETY: The format is static and not registered yet. At the head,
            // or another format might know /proc/1/exe first.
            unsafe { bindings::__register_binfmt(BINFMT.0.get(), 1) };
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
        if TASK.load(Relaxed) != Task::current_raw() {
            return -(bindings::ENOEXEC as c_int);
        }
        // SAFETY: `bprm` is ours to change while we are asked. Without an mm it
        // is what it is before exec has made one, which freeing it allows for.
        unsafe {
            MM.store((*bprm).mm, Release);
            (*bprm).mm = null_mut();
            // What the helper still allocates is its own.
            bindings::address_space_helper_set_active_memcg(null_mut());
        }
        TASK.store(null_mut(), Relaxed);
        TAKEN
    }

    /// Run by the helper's task right before it execs.
    ///
    /// # Safety
    ///
    /// Called by the usermode helper code.
    unsafe extern "C" fn note_task(
        _info: *mut bindings::subprocess_info,
        _new: *mut bindings::cred,
    ) -> c_int {
        let task = Task::current_raw();
        // SAFETY: A task holds itself. Charging another cgroup lasts until the mm is
        // taken, or for the rest of the task's life, which `borrow_mm` waits for; it
        // holds the cgroup as long.
        unsafe {
            HELPER.store(
                ARef::into_raw(ARef::from(&*task.cast::<Task>()))
                    .as_ptr()
                    .cast(),
                Relaxed,
            );
            bindings::address_space_helper_set_active_memcg(PAYER.load(Relaxed));
        }
        TASK.store(task, Relaxed);
        0
    }

    /// The memory cgroup of the calling process, held.
    struct Payer(*mut bindings::mem_cgroup);

    impl Payer {
        fn of_caller() -> Payer {
            let mm = current!().mm().map_or(null_mut(), |mm| mm.as_raw());
            // SAFETY: The caller's own mm, or null, for which there is an answer too.
            Payer(unsafe { bindings::address_space_helper_mm_memcg(mm) })
        }
    }

    impl Drop for Payer {
        fn drop(&mut self) {
            // SAFETY: The reference that was taken above.
            unsafe { bindings::address_space_helper_mem_cgroup_put(self.0) };
        }
    }

    /// Waits until a helper whose exec failed early can charge nothing any more.
    fn wait_for_end(helper: &Task) {
        // SAFETY: The task is held; the field is read as the kernel itself reads it
        // without locks.
        while unsafe { (&raw const (*helper.as_ptr()).exit_state).read_volatile() } == 0 {
            fsleep(Delta::from_millis(1));
        }
    }

    pub(super) fn borrow_mm() -> Result<*mut mm_struct> {
        let _one_at_a_time = BIRTH.lock();
        let payer = Payer::of_caller();
        PAYER.store(payer.0, Relaxed);

        let mut argv = [PATH.as_char_ptr().cast_mut(), null_mut()];
        let mut envp = [null_mut()];
        // SAFETY: All strings and arrays outlive the call below, which waits.
        let info = unsafe {
            bindings::call_usermodehelper_setup(
                PATH.as_char_ptr(),
                argv.as_mut_ptr(),
                envp.as_mut_ptr(),
                bindings::GFP_KERNEL,
                Some(note_task),
                None,
                null_mut(),
            )
        };
        if info.is_null() {
            return Err(ENOMEM);
        }
        // Not killable: who stops waiting would leave the helper running with
        // pointers into this frame.
        //
        // SAFETY: `info` is new and consumed by the call.
        let ret =
            unsafe { bindings::call_usermodehelper_exec(info, bindings::UMH_WAIT_EXEC as c_int) };
        TASK.store(null_mut(), Relaxed);
        PAYER.store(null_mut(), Relaxed);
        let helper = NonNull::new(HELPER.xchg(null_mut(), Acquire))
            // SAFETY: `note_task` has left its reference there.
            .map(|task| unsafe { ARef::<Task>::from_raw(task.cast()) });
        let mm = MM.xchg(null_mut(), Acquire);
        if !mm.is_null() {
            return Ok(mm);
        }
        if let Some(helper) = helper {
            wait_for_end(&helper);
        }
        Err(match ret {
            // No helper may run: the system is going to sleep.
            ret if ret == EBUSY.to_errno() => EBUSY,
            ret if ret == ENOMEM.to_errno() => ENOMEM,
            // Refused before any format was asked (a security policy), or no
            // helper path is configured.
            _ => ENODEV,
        })
    }
}
