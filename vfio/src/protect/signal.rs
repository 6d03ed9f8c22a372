//! Writes to protected pages that are served by the writer itself, in a signal handler.
//!
//! The kernel sends SIGBUS to the thread that writes, at the very instruction. So the handler is like
//! a function that the writer calls there: it may take locks, as long as nobody writes to lent memory
//! while he has them. None of ours is held over a write of the program, nor does any of our memory
//! lie in what is lent.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock};

use rustix::io::Errno;

use super::ProtectError;
use super::shared::Shared;
use crate::space::lock;

/// Whose writes are served here.
static SERVED: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

/// What was done about SIGBUS before us; an error if our handler could not be installed.
static BEFORE: OnceLock<Result<libc::sigaction, Errno>> = OnceLock::new();

/// Serves the writes of one descriptor as long as it exists.
#[derive(Debug)]
pub(crate) struct Served {
    shared: Arc<Shared>,
}

impl Served {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, ProtectError> {
        let before = BEFORE.get_or_init(|| {
            let before = action(None)?;
            Ok(before)
        });
        let installed = before.as_ref().map_err(|errno| *errno);
        let installed = installed.and_then(|_| install());
        installed.map_err(|errno| ProtectError::system("cannot handle SIGBUS", errno))?;
        lock(&SERVED).push(Arc::clone(shared));
        Ok(Self {
            shared: Arc::clone(shared),
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut served = lock(&SERVED);
        let index = served
            .iter()
            .position(|shared| Arc::ptr_eq(shared, &self.shared));
        let ours = index.map(|index| served.swap_remove(index));
        drop(served);
        // Not under the lock, should it be the last share.
        drop(ours);
    }
}

/// Puts our handler in its place, if it is not there: once, unless somebody has replaced it since.
fn install() -> Result<(), Errno> {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
    let address = handler as *const () as usize;
    if action(None)?.sa_sigaction == address {
        return Ok(());
    }
    // SAFETY: all zeros are a valid value of this structure of C: the default action.
    let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    new.sa_sigaction = address;
    // Not on the alternate stack, which is short; nested ones are for whoever was there before.
    new.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESTART;
    action(Some(&new)).map(|_| ())
}

/// The action for SIGBUS as it was, which becomes `new` if there is one.
fn action(new: Option<&libc::sigaction>) -> Result<libc::sigaction, Errno> {
    let mut old = MaybeUninit::uninit();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `new` is null or an action whose handler is made for it; `old` has room for one.
    if unsafe { libc::sigaction(libc::SIGBUS, new, old.as_mut_ptr()) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
    }
    // SAFETY: the call has succeeded, so the old action is there.
    Ok(unsafe { old.assume_init() })
}

extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid `info` to a handler with SA_SIGINFO.
    let said = unsafe { &*info };
    // SAFETY: SIGBUS has an address; where a process has sent it, the code says so, and it is not
    // looked at.
    let address = unsafe { said.si_addr() } as usize;
    // SAFETY: a place of this thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    let served = said.si_code == libc::BUS_ADRERR && serve(address);
    // SAFETY: as above.
    unsafe { *errno = saved };
    if !served {
        pass_on(signal, info, context);
    }
}

/// Serves the write, or waits until it can be made; false if the address is none of ours.
fn serve(address: usize) -> bool {
    let find = |shared: &Arc<Shared>| Some((Arc::clone(shared), shared.find(address)?));
    let found = lock(&SERVED).iter().find_map(find);
    let Some((shared, watch)) = found else {
        return false;
    };
    watch.serve_here(&shared, address)
}

/// Does what would have been done without us.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = BEFORE.get().and_then(|before| before.as_ref().ok());
    let handler = before.map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    if let (Some(before), false) = (before, matches!(handler, libc::SIG_DFL | libc::SIG_IGN)) {
        if before.sa_flags & libc::SA_SIGINFO != 0 {
            // SAFETY: it was installed as a handler of this kind.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        } else {
            // SAFETY: it was installed as a handler of this kind.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
        return;
    }
    // SAFETY: all zeros are a valid value of this structure of C: the default action.
    let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    if action(Some(&default)).is_ok() {
        // Ends the process, whether a process has sent it or the instruction is tried again.
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(signal) };
    }
}
