//! The C interface of librados and librbd as far as it is used, and handles that close themselves.
//!
//! All of the crate's unsafe code is here. Whatever is not named `read` or `write` blocks; those two are answered from
//! a thread of librbd's. An error is Ceph's error number.
#![allow(unsafe_code, reason = "the libraries are C")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    io::{self, IoSlice},
    mem::ManuallyDrop,
    ptr::{null, null_mut},
    sync::{Arc, Once, OnceLock},
};

use bytes::Bytes;
use libloading::Library;
use tokio::{runtime::Handle, sync::oneshot};

type Raw = *mut c_void;

/// A command to the cluster: the handle, the commands and their number, an input, an answer, and a text beside it.
type Command = unsafe extern "C" fn(
    Raw,
    *const *const c_char,
    usize,
    *const c_char,
    usize,
    *mut *mut c_char,
    *mut usize,
    *mut *mut c_char,
    *mut usize,
) -> c_int;

/// Only what is layered can be cloned.
const LAYERING: u64 = 1;

/// As `rbd_linked_image_spec_t`.
#[repr(C)]
#[derive(Clone)]
struct Linked {
    pool_id: i64,
    pool_name: *mut c_char,
    pool_namespace: *mut c_char,
    image_id: *mut c_char,
    image_name: *mut c_char,
    trash: bool,
}

unsafe extern "C" {
    /// glibc's. What is registered last is called first, so before what was registered by the libraries until then.
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    fn _exit(status: c_int) -> !;
}

/// Whether [`leave`] is registered.
static ENDING: Once = Once::new();

/// Ceph's threads run until the process ends. What its libraries would clean up at the end, below those threads, can
/// break the process off with `std::system_error`: the end comes without, as in Ceph's own commands.
extern "C" fn leave(status: c_int, _: *mut c_void) {
    // SAFETY: it only ends the process. What Rust writes was written before exit handlers are called.
    unsafe { _exit(status) }
}

macro_rules! api {
    ($($library:ident { $($name:ident($($argument:ty),*) $(-> $answer:ty)?;)* })*) => {
        /// The functions, which live as long as the program: so does the library that each is from.
        pub(super) struct Api {
            $($($name: unsafe extern "C" fn($($argument),*) $(-> $answer)?,)*)*
            _libraries: [Library; 2],
        }

        impl Api {
            fn load($($library: &str),*) -> Result<Self, libloading::Error> {
                // SAFETY: Ceph's libraries do nothing when they are loaded but set up their own statics.
                $(let $library = unsafe { Library::new($library)? };)*
                Ok(Self {
                    // SAFETY: the types are those of rados/librados.h and rbd/librbd.h, which the libraries' version
                    // numbers vouch for; the library is kept beside the function.
                    $($($name: *unsafe { $library.get(concat!(stringify!($name), "\0"))? },)*)*
                    _libraries: [$($library),*],
                })
            }
        }
    };
}

api! {
    rados {
        rados_create(*mut Raw, *const c_char) -> c_int;
        rados_conf_read_file(Raw, *const c_char) -> c_int;
        rados_conf_set(Raw, *const c_char, *const c_char) -> c_int;
        rados_conf_get(Raw, *const c_char, *mut c_char, usize) -> c_int;
        rados_connect(Raw) -> c_int;
        rados_shutdown(Raw);
        rados_cluster_fsid(Raw, *mut c_char, usize) -> c_int;
        rados_mon_command(
            Raw, *const *const c_char, usize, *const c_char, usize, *mut *mut c_char, *mut usize, *mut *mut c_char,
            *mut usize
        ) -> c_int;
        rados_mgr_command(
            Raw, *const *const c_char, usize, *const c_char, usize, *mut *mut c_char, *mut usize, *mut *mut c_char,
            *mut usize
        ) -> c_int;
        rados_ioctx_create(Raw, *const c_char, *mut Raw) -> c_int;
        rados_ioctx_destroy(Raw);
        rados_set_osdmap_full_try(Raw);
        rados_buffer_free(*mut c_char);
    }
    rbd {
        rbd_create2(Raw, *const c_char, u64, u64, *mut c_int) -> c_int;
        rbd_clone(Raw, *const c_char, *const c_char, Raw, *const c_char, u64, *mut c_int) -> c_int;
        rbd_remove(Raw, *const c_char) -> c_int;
        rbd_list(Raw, *mut c_char, *mut usize) -> c_int;
        rbd_open(Raw, *const c_char, *mut Raw, *const c_char) -> c_int;
        rbd_open_read_only(Raw, *const c_char, *mut Raw, *const c_char) -> c_int;
        rbd_close(Raw) -> c_int;
        rbd_get_size(Raw, *mut u64) -> c_int;
        rbd_get_overlap(Raw, *mut u64) -> c_int;
        rbd_resize(Raw, u64) -> c_int;
        rbd_flush(Raw) -> c_int;
        rbd_metadata_get(Raw, *const c_char, *mut c_char, *mut usize) -> c_int;
        rbd_metadata_set(Raw, *const c_char, *const c_char) -> c_int;
        rbd_metadata_remove(Raw, *const c_char) -> c_int;
        rbd_snap_create(Raw, *const c_char) -> c_int;
        rbd_snap_remove(Raw, *const c_char) -> c_int;
        rbd_snap_protect(Raw, *const c_char) -> c_int;
        rbd_snap_unprotect(Raw, *const c_char) -> c_int;
        rbd_list_children3(Raw, *mut Linked, *mut usize) -> c_int;
        rbd_linked_image_spec_list_cleanup(*mut Linked, usize);
        rbd_aio_create_completion(Raw, extern "C" fn(Raw, Raw), *mut Raw) -> c_int;
        rbd_aio_read(Raw, u64, usize, *mut c_char, Raw) -> c_int;
        rbd_aio_writev(Raw, *const IoSlice<'_>, c_int, u64, Raw) -> c_int;
        rbd_aio_get_return_value(Raw) -> isize;
        rbd_aio_release(Raw);
    }
}

/// Loads the libraries, unless they are.
pub(super) fn api() -> Result<&'static Api, libloading::Error> {
    static API: OnceLock<Api> = OnceLock::new();
    if let Some(api) = API.get() {
        return Ok(api);
    }
    let api = Api::load("librados.so.2", "librbd.so.1")?;
    Ok(API.get_or_init(|| api))
}

/// What the libraries know an open thing by.
struct Known(Raw);

// SAFETY: librados and librbd lock what they share: any thread may use any handle.
unsafe impl Send for Known {}
// SAFETY: as above.
unsafe impl Sync for Known {}

fn done(code: c_int) -> io::Result<()> {
    match code {
        0.. => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

fn or_null(text: Option<&CStr>) -> *const c_char {
    text.map_or(null(), CStr::as_ptr)
}

/// A client of the cluster; to be dropped where it may block.
pub(super) struct Cluster {
    api: &'static Api,
    known: Known,
}

impl Cluster {
    pub(super) fn new(api: &'static Api, user: &str) -> io::Result<Self> {
        let user = CString::new(user)?;
        let mut raw = null_mut();
        // SAFETY: both pointers are valid for the call, which copies the name.
        done(unsafe { (api.rados_create)(&raw mut raw, user.as_ptr()) })?;
        Ok(Self { api, known: Known(raw) })
    }

    pub(super) fn read_conf(&self, path: &str) -> io::Result<()> {
        let path = CString::new(path)?;
        // SAFETY: the handle is open; the path is copied.
        done(unsafe { (self.api.rados_conf_read_file)(self.known.0, path.as_ptr()) })
    }

    pub(super) fn set(&self, key: &str, value: &str) -> io::Result<()> {
        let (key, value) = (CString::new(key)?, CString::new(value)?);
        // SAFETY: the handle is open; both texts are copied.
        done(unsafe { (self.api.rados_conf_set)(self.known.0, key.as_ptr(), value.as_ptr()) })
    }

    pub(super) fn connect(&self) -> io::Result<()> {
        // SAFETY: the handle is open, and connected at most once.
        done(unsafe { (self.api.rados_connect)(self.known.0) })?;
        ENDING.call_once(|| {
            // SAFETY: it may be called at any time; what it is given needs no argument.
            unsafe { on_exit(leave, null_mut()) };
        });
        Ok(())
    }

    pub(super) fn fsid(&self) -> io::Result<String> {
        let mut text = [0; 64];
        // SAFETY: the handle is connected; what is written fits the buffer, whose size is told, with its last byte 0.
        done(unsafe { (self.api.rados_cluster_fsid)(self.known.0, text.as_mut_ptr(), text.len() - 1) })?;
        // SAFETY: the buffer ends with 0.
        Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// What new images are to be able to, as Glance makes them: the cluster's default, if the client was told of one.
    fn default_features(&self) -> u64 {
        let mut text = [0; 64];
        // SAFETY: the handle is open; what is written fits the buffer, whose size is told, with its last byte 0.
        let code = unsafe {
            let key = c"rbd_default_features".as_ptr();
            (self.api.rados_conf_get)(self.known.0, key, text.as_mut_ptr(), text.len() - 1)
        };
        // SAFETY: the buffer ends with 0.
        let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy();
        done(code).ok().and_then(|()| text.trim().parse().ok()).unwrap_or(0) | LAYERING
    }

    /// The pool, of a runtime that closes it where it blocks nobody.
    pub(super) fn pool(self, name: &str, runtime: Handle) -> io::Result<Pool> {
        let name = CString::new(name)?;
        let (api, mut raw) = (self.api, null_mut());
        // SAFETY: the handle is connected; the name is copied.
        done(unsafe { (api.rados_ioctx_create)(self.known.0, name.as_ptr(), &raw mut raw) })?;
        // A full pool is an error then; else its writers wait until somebody makes room.
        // SAFETY: the pool's handle was just opened.
        unsafe { (api.rados_set_osdmap_full_try)(raw) };
        let features = self.default_features();
        Ok(Pool { api, open: Some((Known(raw), ManuallyDrop::new(self))), features, runtime })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nothing that belongs to it is.
        unsafe { (self.api.rados_shutdown)(self.known.0) };
    }
}

/// A pool with the cluster it is in.
pub(super) struct Pool {
    api: &'static Api,
    /// Until it is dropped. A runtime that has ended closes nothing any more, and so does not disconnect either.
    open: Option<(Known, ManuallyDrop<Cluster>)>,
    /// Of new images.
    features: u64,
    runtime: Handle,
}

impl Pool {
    fn raw(&self) -> Raw {
        self.open.as_ref().map_or(null_mut(), |(known, _)| known.0)
    }

    fn cluster(&self) -> Raw {
        self.open.as_ref().map_or(null_mut(), |(_, cluster)| cluster.known.0)
    }

    /// What the monitors answer to a command, both as JSON.
    pub(super) fn ask_monitors(&self, command: &str) -> io::Result<Vec<u8>> {
        self.command(self.api.rados_mon_command, command)
    }

    /// Makes an image of objects of `1 << order` bytes.
    pub(super) fn create(&self, image: &str, size: u64, order: c_int) -> io::Result<()> {
        let (image, mut order) = (CString::new(image)?, order);
        // SAFETY: the pool is open; the name and the order are only used during the call.
        done(unsafe { (self.api.rbd_create2)(self.raw(), image.as_ptr(), size, self.features, &raw mut order) })
    }

    /// Makes an image from the snapshot of one in another pool, or in this: it shares its bits with it.
    pub(super) fn clone_image(&self, from: (&str, &str, &str), image: &str, order: c_int) -> io::Result<()> {
        let (pool, parent, snapshot) = (CString::new(from.0)?, CString::new(from.1)?, CString::new(from.2)?);
        let (image, mut order, mut other) = (CString::new(image)?, order, null_mut());
        // SAFETY: the cluster is connected as long as the pool is open; the name is copied.
        done(unsafe { (self.api.rados_ioctx_create)(self.cluster(), pool.as_ptr(), &raw mut other) })?;
        // SAFETY: both pools are open; the names and the order are only used during the call; the other pool is closed
        // once.
        done(unsafe {
            let (parent, snapshot, image) = (parent.as_ptr(), snapshot.as_ptr(), image.as_ptr());
            let order = &raw mut order;
            let code = (self.api.rbd_clone)(other, parent, snapshot, self.raw(), image, self.features, order);
            (self.api.rados_ioctx_destroy)(other);
            code
        })
    }

    /// What the manager answers to a command, both as JSON.
    pub(super) fn ask_manager(&self, command: &str) -> io::Result<Vec<u8>> {
        self.command(self.api.rados_mgr_command, command)
    }

    fn command(&self, call: Command, command: &str) -> io::Result<Vec<u8>> {
        let command = CString::new(command)?;
        let (commands, mut answer, mut length) = ([command.as_ptr()], null_mut(), 0);
        // SAFETY: the cluster is connected. The one command is only used during the call, no input goes with it, and no
        // text beside the answer is asked for.
        let code = unsafe {
            let (input, text) = (null(), null_mut());
            let (answer, length) = (&raw mut answer, &raw mut length);
            call(self.cluster(), commands.as_ptr(), 1, input, 0, answer, length, text, null_mut())
        };
        if answer.is_null() {
            return done(code).map(|()| Vec::new());
        }
        // SAFETY: so many bytes are there, until they are given back, once.
        let bytes = unsafe {
            let bytes = std::slice::from_raw_parts(answer.cast::<u8>(), length).to_vec();
            (self.api.rados_buffer_free)(answer);
            bytes
        };
        done(code).map(|()| bytes)
    }

    pub(super) fn remove(&self, image: &str) -> io::Result<()> {
        let image = CString::new(image)?;
        // SAFETY: the pool is open; the name is only used during the call.
        done(unsafe { (self.api.rbd_remove)(self.raw(), image.as_ptr()) })
    }

    /// The names of all images in the pool.
    pub(super) fn images(&self) -> io::Result<Vec<String>> {
        /// `ERANGE`: the buffer is too small, and the size that it must have is told.
        const TOO_SMALL: i32 = 34;
        let mut names = vec![0_u8; 64 << 10];
        loop {
            let mut length = names.len();
            // SAFETY: the pool is open; what is written fits the buffer, whose size is told.
            let listed = done(unsafe { (self.api.rbd_list)(self.raw(), names.as_mut_ptr().cast(), &raw mut length) });
            match listed {
                Err(cause) if cause.raw_os_error() == Some(TOO_SMALL) => names = vec![0; length.max(2 * names.len())],
                listed => break listed?,
            }
        }
        // Each ends with 0, and so does the rest of the buffer.
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    pub(super) fn open(self: &Arc<Self>, image: &str) -> io::Result<Image> {
        self.open_with(self.api.rbd_open, image, None)
    }

    /// For reading, as it is or as it was at the snapshot; without a watch, which would hold up a removal.
    pub(super) fn open_read_only(self: &Arc<Self>, image: &str, snapshot: Option<&str>) -> io::Result<Image> {
        self.open_with(self.api.rbd_open_read_only, image, snapshot)
    }

    fn open_with(
        self: &Arc<Self>,
        open: unsafe extern "C" fn(Raw, *const c_char, *mut Raw, *const c_char) -> c_int,
        image: &str,
        snapshot: Option<&str>,
    ) -> io::Result<Image> {
        let (image, snapshot) = (CString::new(image)?, snapshot.map(CString::new).transpose()?);
        let mut raw = null_mut();
        // SAFETY: the pool is open, and the image keeps it so; the names are only used during the call.
        done(unsafe { open(self.raw(), image.as_ptr(), &raw mut raw, or_null(snapshot.as_deref())) })?;
        Ok(Image { pool: Arc::clone(self), open: Some(Known(raw)) })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let (api, open) = (self.api, self.open.take());
        self.runtime.spawn_blocking(move || {
            if let Some((known, cluster)) = open {
                // SAFETY: every image of the pool is closed: each holds the pool.
                unsafe { (api.rados_ioctx_destroy)({ known }.0) };
                drop(ManuallyDrop::into_inner(cluster));
            }
        });
    }
}

/// An open image. Where it is dropped, it is closed in the background; requests under way hold it.
pub(super) struct Image {
    pool: Arc<Pool>,
    /// Until it is closed.
    open: Option<Known>,
}

impl Image {
    fn api(&self) -> &'static Api {
        self.pool.api
    }

    fn raw(&self) -> Raw {
        self.open.as_ref().map_or(null_mut(), |known| known.0)
    }

    fn named(&self, call: unsafe extern "C" fn(Raw, *const c_char) -> c_int, name: &str) -> io::Result<()> {
        let name = CString::new(name)?;
        // SAFETY: the image is open; the name is only used during the call. All of `call`'s kind ask for no more.
        done(unsafe { call(self.raw(), name.as_ptr()) })
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        let mut size = 0;
        // SAFETY: the image is open, and the pointer valid.
        done(unsafe { (self.api().rbd_get_size)(self.raw(), &raw mut size) }).map(|()| size)
    }

    /// How much of it, from its beginning, is another's as long as it was not written.
    pub(super) fn overlap(&self) -> io::Result<u64> {
        let mut overlap = 0;
        // SAFETY: the image is open, and the pointer valid.
        done(unsafe { (self.api().rbd_get_overlap)(self.raw(), &raw mut overlap) }).map(|()| overlap)
    }

    pub(super) fn resize(&self, size: u64) -> io::Result<()> {
        // SAFETY: the image is open.
        done(unsafe { (self.api().rbd_resize)(self.raw(), size) })
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        // SAFETY: the image is open.
        done(unsafe { (self.api().rbd_flush)(self.raw()) })
    }

    /// What the key says, if it is short.
    pub(super) fn metadata(&self, key: &str) -> io::Result<String> {
        let (key, mut value) = (CString::new(key)?, [0; 64]);
        let mut length = value.len() - 1;
        // SAFETY: the image is open; what is written fits the buffer, whose size is told, with its last byte 0.
        done(unsafe { (self.api().rbd_metadata_get)(self.raw(), key.as_ptr(), value.as_mut_ptr(), &raw mut length) })?;
        // SAFETY: the buffer ends with 0.
        Ok(unsafe { CStr::from_ptr(value.as_ptr()) }.to_string_lossy().into_owned())
    }

    pub(super) fn set_metadata(&self, key: &str, value: &str) -> io::Result<()> {
        let (key, value) = (CString::new(key)?, CString::new(value)?);
        // SAFETY: the image is open; both texts are only used during the call.
        done(unsafe { (self.api().rbd_metadata_set)(self.raw(), key.as_ptr(), value.as_ptr()) })
    }

    pub(super) fn remove_metadata(&self, key: &str) -> io::Result<()> {
        self.named(self.api().rbd_metadata_remove, key)
    }

    pub(super) fn snapshot(&self, name: &str) -> io::Result<()> {
        self.named(self.api().rbd_snap_create, name)
    }

    pub(super) fn remove_snapshot(&self, name: &str) -> io::Result<()> {
        self.named(self.api().rbd_snap_remove, name)
    }

    pub(super) fn protect(&self, snapshot: &str) -> io::Result<()> {
        self.named(self.api().rbd_snap_protect, snapshot)
    }

    pub(super) fn unprotect(&self, snapshot: &str) -> io::Result<()> {
        self.named(self.api().rbd_snap_unprotect, snapshot)
    }

    /// The clones of the snapshot that the image is open at, each as `pool/image`.
    pub(super) fn children(&self) -> io::Result<Vec<String>> {
        let unset = Linked {
            pool_id: 0,
            pool_name: null_mut(),
            pool_namespace: null_mut(),
            image_id: null_mut(),
            image_name: null_mut(),
            trash: false,
        };
        let mut count = 16;
        loop {
            let mut found = vec![unset.clone(); count];
            // SAFETY: the image is open; there is room for as many as `count` tells. Too many for it, and it tells
            // how many there are.
            let code = unsafe { (self.api().rbd_list_children3)(self.raw(), found.as_mut_ptr(), &raw mut count) };
            if code < 0 && count > found.len() {
                continue;
            }
            done(code)?;
            found.truncate(count);
            let text = |text: *const c_char| match text.is_null() {
                true => String::new(),
                // SAFETY: it is not null, and then a text of the library's that is freed below.
                false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
            };
            let names = found.iter().map(|child| format!("{}/{}", text(child.pool_name), text(child.image_name)));
            let names = names.collect();
            // SAFETY: these are the entries that the library filled, freed once.
            unsafe { (self.api().rbd_linked_image_spec_list_cleanup)(found.as_mut_ptr(), found.len()) };
            return Ok(names);
        }
    }

    /// Starts to write the chunks, one behind the other.
    pub(super) fn write(self: &Arc<Self>, offset: u64, chunks: Vec<Bytes>) -> Answer {
        let length = chunks.iter().map(Bytes::len).sum();
        self.start(Buffers { chunks, room: Vec::new() }, length, |api, image, buffers, completion| {
            let slices: Vec<IoSlice<'_>> = buffers.chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
            let Ok(count) = c_int::try_from(slices.len()) else { return -7 };
            // SAFETY: an `IoSlice` is an iovec; the list is only read during the call, and the chunks stay where they
            // are until the request has ended.
            unsafe { (api.rbd_aio_writev)(image, slices.as_ptr(), count, offset, completion) }
        })
    }

    /// Starts to read so many bytes, all of which are within the image.
    pub(super) fn read(self: &Arc<Self>, offset: u64, length: usize) -> Answer {
        self.start(Buffers { chunks: Vec::new(), room: vec![0; length] }, length, |api, image, buffers, completion| {
            // SAFETY: the room has the length, and stays where it is until the request has ended.
            unsafe { (api.rbd_aio_read)(image, offset, length, buffers.room.as_mut_ptr().cast(), completion) }
        })
    }

    fn start(
        self: &Arc<Self>,
        buffers: Buffers,
        length: usize,
        begin: impl FnOnce(&Api, Raw, &mut Buffers, Raw) -> c_int,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let (api, image) = (self.api(), self.raw());
        let request = Box::into_raw(Box::new(Request { image: Arc::clone(self), buffers, length, answer }));
        let mut completion = null_mut();
        // SAFETY: `ended` takes the request that it is given here.
        let made = unsafe { (api.rbd_aio_create_completion)(request.cast(), ended, &raw mut completion) };
        // SAFETY: the request is nobody else's before `begin` has handed it over, and lives until `ended`, which comes
        // only after the library has taken what it needs of the buffers' list.
        let code = if made < 0 { made } else { begin(api, image, unsafe { &mut (*request).buffers }, completion) };
        if code < 0 {
            // SAFETY: what was not begun never comes to `ended`: request and completion are still ours.
            let request = unsafe {
                if made >= 0 {
                    (api.rbd_aio_release)(completion);
                }
                Box::from_raw(request)
            };
            let _ = request.answer.send(done(code).map(|()| Bytes::new()));
        }
        answered
    }

    /// To be called where it may block.
    pub(super) fn close(mut self) -> io::Result<()> {
        match self.open.take() {
            // SAFETY: the image is open, and nobody else has it.
            Some(known) => done(unsafe { (self.api().rbd_close)(known.0) }),
            None => Ok(()),
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let Some(known) = self.open.take() else { return };
        let pool = Arc::clone(&self.pool);
        self.pool.runtime.spawn_blocking(move || {
            // SAFETY: nobody else has the image: requests under way would hold it. It waits for the last one's callback.
            let _ = unsafe { (pool.api.rbd_close)({ known }.0) };
        });
    }
}

/// What a request gives at its end: the bytes that were read.
pub(super) type Answer = oneshot::Receiver<io::Result<Bytes>>;

/// What a request writes from, or reads into.
struct Buffers {
    chunks: Vec<Bytes>,
    room: Vec<u8>,
}

/// A request under way. The library has the only pointer to it.
struct Request {
    image: Arc<Image>,
    buffers: Buffers,
    length: usize,
    answer: oneshot::Sender<io::Result<Bytes>>,
}

/// Called by librbd from a thread of its own, once for each request.
extern "C" fn ended(completion: Raw, request: Raw) {
    // SAFETY: it is the request that was given with the completion, and comes here once.
    let Request { image, buffers, length, answer } = *unsafe { Box::from_raw(request.cast::<Request>()) };
    let api = image.api();
    // SAFETY: the completion has ended, and is used no more after this.
    let value = unsafe {
        let value = (api.rbd_aio_get_return_value)(completion);
        (api.rbd_aio_release)(completion);
        value
    };
    let is_read = !buffers.room.is_empty();
    let result = match usize::try_from(value) {
        Ok(count) if is_read && count != length => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(buffers.room.into()),
        Err(_) => Err(io::Error::from_raw_os_error(i32::try_from(-value).unwrap_or_default())),
    };
    // Whoever hears of the end may be the image's last holder, and close it.
    drop(image);
    let _ = answer.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_an_error() {
        assert!(Api::load("libno-rados.so.2", "libno-rbd.so.1").is_err());
    }
}
