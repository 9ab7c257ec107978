//! What tools ask of a running supervisor ([`durac_shm::status::ControlPage`]): another policy, none, or the old one again.

use crate::note;
use crate::serve::Supervisor;
use durac_shm::status::{Answer, Command, Request};

impl Supervisor {
    /// Answers a command, if one waits.
    pub fn look_for_commands(&'static self) {
        let Some(control) = self.page.control else { return };
        let Some(request) = control.take() else { return };
        // A bug must not leave the tool waiting.
        let body = std::panic::AssertUnwindSafe(|| self.carry_out(request.command, &request));
        let answer = match std::panic::catch_unwind(body) {
            Ok(Ok(text)) => Answer::Done(text),
            Ok(Err(why)) => Answer::Refused(why),
            Err(_) => Answer::Refused("this is a bug in durac: the supervisor failed".to_owned()),
        };
        if let Answer::Refused(why) = &answer {
            note::info(&format!("the policy stays as it is: {why}"));
        }
        control.answer(&request, &answer);
    }

    fn carry_out(
        &'static self,
        command: Option<Command>,
        request: &Request,
    ) -> Result<String, String> {
        match command {
            Some(Command::Tell) => Ok(String::new()),
            Some(Command::Off) => {
                self.switch_off();
                Ok("the policy is off".to_owned())
            }
            Some(Command::On) => match self.switch_on_again() {
                true => Ok("the policy is on".to_owned()),
                false => {
                    Err("the supervisor cannot defer syncs of this command any more".to_owned())
                }
            },
            Some(Command::Reload) => self.reload(request.bytes.clone()),
            None => {
                Err("this supervisor does not know the command: it has another version".to_owned())
            }
        }
    }
}
