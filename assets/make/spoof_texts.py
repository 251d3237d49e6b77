"""What the synthesisers of demo-spoof read: sentences of a telephone's kind, in the languages of the human prompts."""

TEXTS = {
    "en": """Thank you for calling the main office, please stay on the line.
Your appointment on Tuesday morning has been moved to a later date.
The train to the harbour leaves from platform seven in twenty minutes.
Please enter the six digits printed on the back of your card.
We could not find an account with the number that you gave us.
All of our advisers are helping other people at the moment.
Your parcel was handed to a neighbour on the second floor.
The library is closed today because of the heavy snow.
To hear the weather for tomorrow, say the name of your town.
A window seat in the last carriage is still available.
The museum opens again on the first Sunday of the month.
If the light on the front is red, switch the machine off and wait.
There are fourteen people waiting in front of you.
The water will be turned off in your street until four o'clock.
Remember to take your umbrella and the yellow folder with you.
The doctor will call you back before the end of the afternoon.
Your order of three lamps and a wooden table is on its way.
The bridge over the river is closed for repairs this week.
We have changed the time of the meeting to half past nine.
Every visitor has to sign the book at the entrance.
The last ferry to the island sails shortly before midnight.
Please describe the problem in a few words after the tone.
Both lifts are out of order, so use the stairs by the garden.
The tickets that you reserved are kept until Friday evening.""",
    "fr": """Merci de votre appel, restez en ligne pour parler à un conseiller.
Votre rendez-vous de mardi matin est remis à une date plus lointaine.
Le train pour le port partira de la voie sept dans vingt minutes.
Veuillez composer les six chiffres imprimés au dos de votre carte.
Nous n'avons trouvé aucun compte avec le numéro que vous avez donné.
Tous nos conseillers sont occupés avec d'autres personnes en ce moment.
Votre colis a été remis à un voisin du deuxième étage.
La bibliothèque est fermée aujourd'hui à cause de la neige.
Pour connaître la météo de demain, dites le nom de votre ville.
Une place près de la fenêtre est encore libre dans la dernière voiture.
Le musée ouvrira de nouveau le premier dimanche du mois.
Si la lampe est rouge, éteignez la machine et attendez un peu.
Il y a quatorze personnes qui attendent devant vous.
L'eau sera coupée dans votre rue jusqu'à quatre heures.
N'oubliez pas de prendre votre parapluie et le dossier jaune.
Le médecin vous rappellera avant la fin de l'après-midi.""",
    "it": """Grazie per la chiamata, la preghiamo di restare in linea.
Il suo appuntamento di martedì mattina è stato spostato.
Il treno per il porto parte dal binario sette fra venti minuti.
Inserisca le sei cifre stampate sul retro della sua carta.
Non abbiamo trovato nessun conto con il numero che ci ha dato.
Tutti i nostri consulenti stanno aiutando altre persone.
Il suo pacco è stato consegnato a un vicino del secondo piano.
La biblioteca oggi resta chiusa a causa della neve.
Per sapere che tempo farà domani, dica il nome della sua città.
Un posto vicino al finestrino è ancora libero nell'ultima carrozza.
Il museo apre di nuovo la prima domenica del mese.
Se la luce davanti è rossa, spenga la macchina e aspetti.
Ci sono quattordici persone in attesa prima di lei.
L'acqua sarà chiusa nella sua strada fino alle quattro.
Si ricordi di prendere l'ombrello e la cartella gialla.
Il medico la richiamerà prima della fine del pomeriggio.
Il suo ordine di tre lampade e un tavolo di legno è in viaggio.
Il ponte sul fiume è chiuso per lavori questa settimana.
Abbiamo spostato la riunione alle nove e mezza di domani.
Ogni visitatore deve firmare il libro vicino all'ingresso.""",
    "es": """Gracias por llamar a la oficina central, no cuelgue por favor.
Su cita del martes por la mañana se ha cambiado de fecha.
El tren para el puerto sale del andén siete en veinte minutos.
Marque los seis números que están escritos detrás de su tarjeta.
No hemos encontrado ninguna cuenta con el número que nos dio.
Todos nuestros agentes están ayudando a otras personas.
Su paquete se entregó a un vecino del segundo piso.
La biblioteca está cerrada hoy a causa de la nieve.
Para saber el tiempo de mañana, diga el nombre de su ciudad.
Queda un asiento junto a la ventana en el último vagón.
El museo abre otra vez el primer domingo del mes.
Si la luz es roja, apague la máquina y espere un momento.""",
    "ru": """Спасибо за звонок, пожалуйста, оставайтесь на линии.
Ваша встреча во вторник утром перенесена на другой день.
Поезд в порт отправляется с седьмого пути через двадцать минут.
Введите шесть цифр, напечатанных на обороте вашей карты.
Мы не нашли счёта с тем номером, который вы назвали.
Все наши сотрудники сейчас помогают другим людям.
Ваша посылка передана соседу со второго этажа.
Библиотека сегодня закрыта из-за сильного снега.
Чтобы узнать погоду на завтра, назовите свой город.
В последнем вагоне осталось одно место у окна.
Музей снова откроется в первое воскресенье месяца.
Если лампа красная, выключите прибор и подождите.""",
}


def sentences(language: str, held_out: bool) -> list[str]:
    """The last quarter of a language's sentences is held out; all of es and ru, which no training recording speaks."""
    spoken = TEXTS[language].splitlines()
    if language in ("es", "ru"):
        return spoken if held_out else []
    kept = len(spoken) * 3 // 4
    return spoken[kept:] if held_out else spoken[:kept]
