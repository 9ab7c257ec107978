//! What tools ask of a running supervisor ([`durac_shm::status::ControlPage`]): another policy, none, or the old one
//! again, or another program in its place.

use crate::keeper::Keeper;
use crate::note;
use crate::serve::Supervisor;
use durac_shm::status::{Answer, Command, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A line that a tool asks for has no more characters.
const LINE: usize = 1000;

impl Supervisor {
    /// Answers a command, if one waits.
    pub fn look_for_commands(&'static self, keeper: Option<&Keeper>) {
        let Some(control) = self.page.control else { return };
        let Some(request) = control.take() else { return };
        // A bug must not leave the tool waiting.
        let body = std::panic::AssertUnwindSafe(|| self.carry_out(&request, keeper));
        let answer = std::panic::catch_unwind(body).unwrap_or_else(|_| {
            let why = "this is a bug in durac: the supervisor failed".to_owned();
            match request.command {
                // It may have happened.
                Some(Command::Off) => Answer::Failed(why),
                _ => Answer::Refused(why),
            }
        });
        if let Answer::Refused(why) = &answer {
            let what = match request.command {
                Some(Command::Upgrade) => "the supervisor",
                _ => "the policy",
            };
            note::info(&format!("{what} stays as it is: {why}"));
        }
        control.answer(&request, &answer);
    }

    fn carry_out(&'static self, request: &Request, keeper: Option<&Keeper>) -> Answer {
        if request.command == Some(Command::Off) {
            return match self.switch_off() {
                Ok(()) => Answer::Done("the policy is off".to_owned()),
                Err(errno) => {
                    let why = std::io::Error::from_raw_os_error(errno);
                    Answer::Failed(format!("a log has failed ({why})"))
                }
            };
        }
        match self.try_to_carry_out(request, keeper) {
            Ok(text) => Answer::Done(text),
            Err(why) => Answer::Refused(why),
        }
    }

    fn try_to_carry_out(
        &'static self,
        request: &Request,
        keeper: Option<&Keeper>,
    ) -> Result<String, String> {
        match request.command {
            Some(Command::Tell) => {
                let text = String::from_utf8_lossy(&request.bytes);
                note::info(&text.chars().take(LINE).collect::<String>());
                Ok(String::new())
            }
            Some(Command::On) => match self.switch_on_again() {
                true => Ok("the policy is on".to_owned()),
                false => {
                    Err("the supervisor cannot defer syncs of this command any more".to_owned())
                }
            },
            Some(Command::Reload) => self.reload(request.bytes.clone()),
            // It does not return if all goes well: the tool sees that another program has taken over.
            Some(Command::Upgrade) => {
                Err(self.upgrade(Path::new(OsStr::from_bytes(&request.bytes)), keeper))
            }
            Some(Command::Off) | None => {
                Err("this supervisor does not know the command: it has another version".to_owned())
            }
        }
    }
}
